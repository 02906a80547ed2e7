"""Log files are safe to read: one object for one message, no secrets, whatever names and errors are in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.errors import UserError
from wan_fixes.health.logs import json_handler

logger = logging.getLogger("wan_fixes.tests")

NASTY = "[red]a[/red]\x1b[2J\u202egpj.mp4\nINFO forged hf_abcdefghijklmnopqrst"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged, line by line."""
    file = tmp_path / "logs" / "wan.jsonl"
    handler = json_handler(file, "run-7")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    handler.close()


def test_each_line_is_an_object_with_the_run_and_the_extra_fields(log: Callable[[], list[dict[str, Any]]]) -> None:
    secrets = {"api_key": "secret-value", "hf_token": Path("secret-path")}
    logger.debug("loaded %s", NASTY, extra={"module_name": "Loader", "source": Path("/a/hf_abcdefgh1234"), **secrets})
    (line,) = log()
    assert (line["run"], line["level"], line["logger"]) == ("run-7", "DEBUG", "wan_fixes.tests")
    assert line["module_name"] == "Loader"
    assert line["message"].startswith("loaded [red]a[/red]\x1b[2J")
    for secret in ("hf_abc", "secret-value", "secret-path"):
        assert secret not in json.dumps(line)


def test_an_exception_keeps_its_type_and_loses_its_secrets(log: Callable[[], list[dict[str, Any]]]) -> None:
    try:
        raise ValueError("GET https://host/x?X-Amz-Signature=0123456789abcdef failed")
    except ValueError:
        logger.exception("download")
    (line,) = log()
    assert "ValueError" in line["exception"] and "0123456789abcdef" not in line["exception"]


def test_a_name_that_is_no_unicode_can_be_logged(log: Callable[[], list[dict[str, Any]]]) -> None:
    logger.info("skipped %s", "clip\udcff.mp4")
    assert log()[0]["message"] == "skipped clip\udcff.mp4"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="log file cannot be written") as caught:
        json_handler(tmp_path / "file" / "wan.jsonl", "")
    assert caught.value.path == str(tmp_path / "file" / "wan.jsonl")
