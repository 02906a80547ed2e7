"""A run's log file holds what happened, under the run's id, and leaves the host's console as it was."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.health import logs
from wan_fixes.health.run_log import LOG_FILE, RunLog
from wan_fixes.models.correlation import correlated, model_logger

package = logging.getLogger("wan_fixes")
logger = logging.getLogger("wan_fixes.pipeline.example")


class Kept(logging.Handler):
    """A host's console: keeps the lines that it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(autouse=True)
def surroundings() -> Iterator[None]:
    """The package's logger as in a process that has set up nothing."""
    root = logging.getLogger()
    before = [(log, log.level, list(log.handlers), log.propagate) for log in (root, package)]
    root.handlers.clear()
    package.handlers.clear()
    package.setLevel(logging.NOTSET)
    root.setLevel(logging.WARNING)
    yield
    for log, level, handlers, propagate in before:
        log.setLevel(level)
        log.handlers[:] = handlers
        log.propagate = propagate


@pytest.fixture
def console() -> Kept:
    """On the root logger, as hosts have it."""
    shown = Kept()
    logging.getLogger().addHandler(shown)
    return shown


def lines(workspace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workspace / LOG_FILE).read_text(encoding="utf-8").splitlines()]


def messages(workspace: Path) -> list[str]:
    return [line["message"] for line in lines(workspace)]


def test_every_line_has_the_runs_id(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        logger.info("cached %s", "a.mp4")
        logger.warning("skipped b.mp4")
    assert messages(tmp_path) == ["the log of a run begins", "cached a.mp4", "skipped b.mp4", "the run ended"]
    assert {line["run"] for line in lines(tmp_path)} == {log.correlation_id}
    assert len(log.correlation_id) == 12


def test_two_runs_have_two_ids_in_one_file(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(tmp_path):
            logger.info("something")
    assert len({line["run"] for line in lines(tmp_path)}) == 2
    assert messages(tmp_path).count("something") == 2


def test_a_download_keeps_an_id_of_its_own_within_the_run(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log, correlated() as operation:
        model_logger("wan_fixes.models.example").info("fetching")
    line = next(line for line in lines(tmp_path) if line["message"] == "fetching")
    assert (line["run"], line["correlation_id"]) == (log.correlation_id, operation)
    assert operation != log.correlation_id


def test_secrets_are_masked(tmp_path: Path) -> None:
    with RunLog(tmp_path):
        logger.info("asking with hf_abcdefghijklmnop", extra={"api_key": "a-secret-value"})
    text = (tmp_path / LOG_FILE).read_text(encoding="utf-8")
    assert "hf_abc" not in text
    assert "a-secret-value" not in text


def test_the_console_shows_what_it_showed_before(tmp_path: Path, console: Kept) -> None:
    with RunLog(tmp_path):
        logger.info("only for the file")
        logger.warning("for both")
    logger.info("afterwards")
    assert console.lines == ["for both"]
    assert {"only for the file", "for both"} <= set(messages(tmp_path))
    assert "afterwards" not in messages(tmp_path)


def test_a_console_of_our_own_logger_shows_what_it_showed_before(tmp_path: Path) -> None:
    shown = Kept()
    package.addHandler(shown)
    package.setLevel(logging.WARNING)
    with RunLog(tmp_path):
        logger.info("only for the file")
        logger.warning("for both")
    logger.info("afterwards")
    assert shown.lines == ["for both"]
    assert (package.handlers, package.level, package.propagate, shown.filters) == ([shown], logging.WARNING, True, [])


def test_warnings_reach_standard_error_where_nobody_has_set_up_logging(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # what pytest listens with
    monkeypatch.setattr(logging, "lastResort", logging._StderrHandler(logging.WARNING))
    with RunLog(tmp_path):
        logger.info("only for the file")
        logger.warning("seen once")
    assert capsys.readouterr().err == "seen once\n"


def test_a_host_that_asks_for_everything_gets_everything_in_the_file_too(tmp_path: Path, console: Kept) -> None:
    package.setLevel(logging.DEBUG)
    with RunLog(tmp_path):
        logger.debug("a detail")
    assert console.lines == ["a detail"]
    assert "a detail" in messages(tmp_path)


def test_the_lines_of_a_trace_go_to_the_file_alone(tmp_path: Path, console: Kept) -> None:
    package.setLevel(logging.INFO)
    with RunLog(tmp_path):
        logger.info("Loader (0), sample 3", extra={"trace": {"module": "Loader", "seconds": 0.5}})
        logger.info("an ordinary line")
    assert console.lines == ["an ordinary line"]
    assert next(line for line in lines(tmp_path) if "trace" in line)["trace"] == {"module": "Loader", "seconds": 0.5}


def test_what_ended_the_run_is_in_the_file_with_where_it_came_from(tmp_path: Path, console: Kept) -> None:
    with pytest.raises(ZeroDivisionError), RunLog(tmp_path):
        raise ZeroDivisionError("on purpose")
    assert lines(tmp_path)[-1]["level"] == "ERROR"
    assert "ZeroDivisionError: on purpose" in lines(tmp_path)[-1]["exception"]
    assert console.lines == []


def test_the_file_is_closed_with_the_run(tmp_path: Path) -> None:
    """Windows deletes no file that is open."""
    log = RunLog(tmp_path).open()
    (handler,) = [handler for handler in package.handlers if isinstance(handler, logging.FileHandler)]
    log.close()
    log.close()
    assert handler.stream is None
    assert package.handlers == []


def test_a_workspace_that_cannot_be_written_to_is_a_warning(tmp_path: Path, console: Kept) -> None:
    (tmp_path / "logs").write_text("in the way", encoding="utf-8")
    with RunLog(tmp_path) as log:
        logger.warning("the run goes on")
    assert log.correlation_id
    assert "this run has no log file" in console.lines[0]
    assert str(tmp_path / "logs") in console.lines[0]
    assert console.lines[1:] == ["the run goes on"]


def test_without_a_file_there_is_an_id_and_nothing_else(tmp_path: Path, console: Kept) -> None:
    with RunLog(None) as log:
        logger.info("nowhere")
    assert len(log.correlation_id) == 12
    assert (list(tmp_path.iterdir()), console.lines, package.level) == ([], [], logging.NOTSET)


def test_a_full_file_is_followed_by_a_new_one_and_three_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_FILE_BYTES", 1000)
    with RunLog(tmp_path):
        for number in range(100):
            logger.info("line %d", number)
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files == ["wan-fixes.jsonl", *(f"wan-fixes.jsonl.{number}" for number in (1, 2, 3))]
    assert all(path.stat().st_size <= 1000 for path in (tmp_path / "logs").iterdir())


def test_a_file_that_cannot_be_rotated_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a file that another process has open cannot be renamed."""
    monkeypatch.setattr(logs, "_FILE_BYTES", 500)

    def refuse(source: str, target: str) -> None:
        raise PermissionError(13, "in use", source)

    with RunLog(tmp_path):
        monkeypatch.setattr(os, "rename", refuse)
        for number in range(20):
            logger.info("line %d", number)
        assert messages(tmp_path)[1:] == [f"line {number}" for number in range(20)]
        monkeypatch.undo()


def test_a_disk_that_is_full_is_said_once(tmp_path: Path, console: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handler: logging.Handler, record: logging.LogRecord) -> bool:
        raise OSError(28, "No space left on device")

    with RunLog(tmp_path):
        monkeypatch.setattr(logging.handlers.RotatingFileHandler, "shouldRollover", refuse)
        for _ in range(3):
            logger.info("lost")
    assert len(console.lines) == 1
    assert "is not written any more" in console.lines[0]
    assert "No space left on device" in console.lines[0]


def test_of_two_runs_at_once_the_first_to_end_leaves_the_other_its_file(tmp_path: Path, console: Kept) -> None:
    first, second = RunLog(tmp_path / "a").open(), RunLog(tmp_path / "b").open()
    first.close()
    logger.info("to the second")
    logger.warning("to the console")
    second.close()
    assert "to the second" in messages(tmp_path / "b")
    assert "to the second" not in messages(tmp_path / "a")
    assert console.lines == ["to the console"]
