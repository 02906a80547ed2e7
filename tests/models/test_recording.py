"""What model files went through is recorded, and recording never stands in the way (M13, M18)."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import wan_fixes.models
from wan_fixes.health import RunDatabase, RunReader
from wan_fixes.models.correlation import adopt, correlated, correlation_id, model_logger
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.names import ModelName
from wan_fixes.models.recording import ModelRecorder

TINY = ModelName("tiny", "1.0.0", "original")
LABELS = "model_id=tiny@1.0.0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".state" / "runs.sqlite"


def recorder_of(path: Path, **settings: Any) -> ModelRecorder:
    return ModelRecorder(ModelResolver(path.parent.parent), **settings)


def the_run(path: Path) -> tuple[Any, list[Any], dict[str, float]]:
    """The only run: itself, its events, its counters."""
    reader = RunReader(path)
    (run,) = reader.runs()
    return run, reader.events(run.id), reader.counters_of(run.id)


def test_m18_what_had_nothing_to_do_leaves_no_trace(path: Path) -> None:
    with recorder_of(path).operation("ensure", TINY) as operation:
        assert operation.correlation_id
    assert not path.parent.exists()


def test_m18_an_ensure_is_recorded_with_what_came_from_where(path: Path) -> None:
    times = iter(range(100))
    with recorder_of(path, clock=lambda: float(next(times))).operation("ensure", TINY) as operation:
        operation.begin()
        operation.came("hub:Wan-AI/Tiny-Diffusers", 700)
        operation.came("hub:Wan-AI/Tiny-Diffusers", 300)
        operation.came("folder:/mnt/of a user", 50)
        operation.came("folder:/mnt/of a user", -10)
    assert [file.name for file in path.parent.iterdir()] == [path.name], "a database that is open has its log beside it"
    run, events, counters = the_run(path)
    assert (run.kind, run.status) == ("models", "finished")
    assert run.config == {
        "operation": "ensure",
        "correlation_id": operation.correlation_id,
        "model_id": "tiny@1.0.0",
        "variant": "original",
    }
    assert [event.kind for event in events] == ["started", "finished"]
    assert events[1].facts["bytes"] == {"hub": 1000, "folder": 40}
    assert events[1].facts["seconds"] > 0
    assert all(event.facts["correlation_id"] == operation.correlation_id for event in events)
    assert counters[f"fetched_bytes{{{LABELS},source=hub,variant=original}}"] == 1000
    assert counters[f"ensure.calls{{{LABELS},variant=original}}"] == 1


def test_m18_a_failure_is_recorded_with_its_code_and_passes_unchanged(path: Path) -> None:
    failure = ModelError(
        ErrorCode.AUTH_FAIL, "no", reason="https://x/y?X-Amz-Signature=abcdef0123456789", context={"known": 1}
    )
    with pytest.raises(ModelError) as caught, recorder_of(path).operation("ensure", TINY):
        raise failure
    run, events, counters = the_run(path)
    assert caught.value is failure
    assert failure.context == {"known": 1, "correlation_id": run.config["correlation_id"]}
    assert (run.status, events[-1].kind, events[-1].facts["code"]) == ("failed", "failed", "AUTH_FAIL")
    assert counters[f"ensure_failures{{{LABELS},variant=original}}"] == 1
    assert b"abcdef0123456789" not in path.read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ModelError(ErrorCode.STOPPED, "stopped")], ids=repr)
def test_m18_what_was_ended_on_purpose_is_no_failure(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), recorder_of(path).operation("gc") as operation:
        operation.count("reclaimed_bytes", 12)
        raise error
    run, _, counters = the_run(path)
    assert run.status == "interrupted"
    assert counters["reclaimed_bytes"] == 12 and "gc_failures" not in counters


def test_m18_counters_are_written_while_bytes_come(path: Path) -> None:
    now = 0.0
    with recorder_of(path, clock=lambda: now).operation("ensure", TINY) as operation:
        operation.came("hub:x", 1)
        now = 6.0
        operation.came("hub:x", 1)
        with RunDatabase(path) as database:
            key = f"fetched_bytes{{{LABELS},source=hub,variant=original}}"
            while key not in database.counters_of(1):
                pass  # the writer's thread writes once a second
            assert (database.counters_of(1)[key], RunReader(path).runs()[0].status) == (2, "running")


def test_m18_operations_at_once_share_the_database_and_each_has_its_run(path: Path) -> None:
    recorder = recorder_of(path)
    both_are_open = threading.Barrier(4)

    def work(number: int) -> str:
        with recorder.operation("verify", TINY) as operation:
            operation.begin()
            both_are_open.wait(10)
            for _ in range(100):
                operation.came(f"hub:{number}", 1)
            return operation.correlation_id

    with ThreadPoolExecutor(4) as executor:
        ids = set(executor.map(work, range(4)))
    runs = RunReader(path).runs()
    assert len(ids) == 4 and {run.config["correlation_id"] for run in runs} == ids
    assert [run.status for run in runs] == ["finished"] * 4
    with recorder.operation("verify", TINY) as operation:
        operation.begin()
    assert len(RunReader(path).runs()) == 5, "it is opened again after it was closed"


def foreign_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()


UNUSABLE = {
    "another program's database": foreign_database,
    "a folder": lambda path: path.mkdir(),
    "a folder that is a file": lambda path: (path.parent.rmdir(), path.parent.write_bytes(b"")),
}


@pytest.mark.parametrize("spoil", UNUSABLE.values(), ids=UNUSABLE)
def test_m18_where_nothing_can_be_recorded_the_operation_goes_on(
    path: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    spoil(path)
    with recorder_of(path).operation("ensure", TINY) as operation:
        operation.begin()
        operation.came("hub:x", 1)
        operation.tell("mended", "a file")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not recorded" in caplog.text


def test_m18_an_id_ties_an_operation_together() -> None:
    assert correlation_id() == ""
    with correlated() as outer:
        assert correlation_id() == outer and len(outer) == 12 and int(outer, 16) >= 0
        with correlated() as inner:
            assert inner == outer
    assert correlation_id() == ""
    with correlated() as later:
        assert later != outer


def test_m18_threads_have_the_id_that_they_adopt() -> None:
    with correlated() as operation:
        with ThreadPoolExecutor(2, initializer=adopt, initargs=(correlation_id(),)) as executor:
            assert executor.submit(correlation_id).result() == operation
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(correlation_id).result() == "", "which is why they must"


def test_m18_every_log_record_carries_the_id(caplog: pytest.LogCaptureFixture) -> None:
    logger = model_logger("wan_fixes.models.of_a_test")
    assert model_logger("wan_fixes.models.of_a_test").filters == logger.filters and len(logger.filters) == 1
    with correlated() as operation:
        logger.warning("within")
    logger.warning("outside")
    assert [vars(record)["correlation_id"] for record in caplog.records] == [operation, ""]
    assert not logging.getLogger().filters


def test_m18_every_logger_of_the_room_gives_the_id() -> None:
    pages = pkgutil.walk_packages(wan_fixes.models.__path__, "wan_fixes.models.")
    modules = [importlib.import_module(page.name) for page in pages]
    loggers = {module.logger.name: module.logger for module in modules if hasattr(module, "logger")}
    assert loggers
    assert [name for name, logger in loggers.items() if logger.filters != model_logger(__name__).filters] == []
