"""Logs are safe to read: one line for one message, no markup, no control characters, no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from wan_fixes.errors import UserError
from wan_fixes.health.logs import configure_logging, shutdown_logging

logger = logging.getLogger("wan_fixes.tests")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    shutdown_logging()


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


def console(screen: io.StringIO) -> Console:
    return Console(file=screen, width=200, force_terminal=False)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


NASTY = "[red]a[/red]\x1b[2J\u202egpj.mp4\nINFO forged hf_abcdefghijklmnopqrst"


def test_a_nasty_name_stays_one_harmless_line_on_the_console(screen: io.StringIO) -> None:
    configure_logging(console=console(screen))
    logger.warning("skipped %s", NASTY)
    shown = screen.getvalue()
    assert len(shown.splitlines()) == 1
    assert "[red]a[/red]" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "hf_abc" not in shown


def test_each_line_of_the_file_is_an_object_with_the_run_and_the_extra_fields(
    tmp_path: Path, screen: io.StringIO
) -> None:
    file = tmp_path / "logs" / "wan.jsonl"
    configure_logging("WARNING", console=console(screen), json_file=file, run="run-7")
    logger.debug("loaded %s", NASTY, extra={"module_name": "Loader", "api_key": "secret-value"})
    (line,) = lines(file)
    assert line["run"] == "run-7"
    assert line["level"] == "DEBUG"
    assert line["logger"] == "wan_fixes.tests"
    assert line["module_name"] == "Loader"
    assert line["message"].startswith("loaded [red]a[/red]\x1b[2J")
    assert "hf_abc" not in file.read_text(encoding="utf-8")
    assert "secret-value" not in file.read_text(encoding="utf-8")
    assert screen.getvalue() == ""


def test_an_exception_keeps_its_type_and_loses_its_secrets(tmp_path: Path, screen: io.StringIO) -> None:
    file = tmp_path / "wan.jsonl"
    configure_logging(console=console(screen), json_file=file)
    try:
        raise ValueError("GET https://host/x?X-Amz-Signature=0123456789abcdef failed")
    except ValueError:
        logger.exception("download")
    (line,) = lines(file)
    for text in (line["exception"], screen.getvalue()):
        assert "ValueError" in text
        assert "0123456789abcdef" not in text


def test_a_name_that_is_no_unicode_can_be_logged(tmp_path: Path, screen: io.StringIO) -> None:
    configure_logging(console=console(screen), json_file=tmp_path / "wan.jsonl")
    logger.info("skipped %s", "clip\udcff.mp4")
    assert lines(tmp_path / "wan.jsonl")[0]["message"] == "skipped clip\udcff.mp4"
    assert "clip\\udcff.mp4" in screen.getvalue()


def test_calling_again_replaces_and_shutting_down_leaves_nothing(tmp_path: Path, screen: io.StringIO) -> None:
    package = logging.getLogger("wan_fixes")
    before = list(package.handlers)
    configure_logging(console=console(screen))
    configure_logging(console=console(screen), json_file=tmp_path / "wan.jsonl")
    logger.info("once")
    assert screen.getvalue().count("once") == 1
    shutdown_logging()
    assert package.handlers == before
    assert package.level == logging.NOTSET


def test_the_root_logger_is_left_alone(screen: io.StringIO) -> None:
    before = (list(logging.root.handlers), logging.root.level)
    configure_logging("DEBUG", console=console(screen))
    assert (list(logging.root.handlers), logging.root.level) == before


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="log file cannot be written") as caught:
        configure_logging(json_file=tmp_path / "file" / "wan.jsonl")
    assert caught.value.path == str(tmp_path / "file" / "wan.jsonl")
