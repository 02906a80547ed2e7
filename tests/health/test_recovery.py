"""Errors are judged by what they are, transient ones are tried again, and patterns change the policy."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import CriticalError, EntryError, SampleError, UserError
from wan_fixes.health import ErrorRecoveryManager, ErrorType, FailurePattern, RecoveryStrategy, RunDatabase
from wan_fixes.health.diagnosis import failure_kind, is_transient
from wan_fixes.settings import Settings

CRITICAL, RECOVERABLE, WARNING = ErrorType.CRITICAL, ErrorType.RECOVERABLE, ErrorType.WARNING


class OutOfMemoryError(RuntimeError):
    """Stands where torch's class of this name stands: the classification goes by name, since torch may be absent."""


class HTTPStatusError(Exception):
    """Shaped like httpx's and requests' errors."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = type("Response", (), {"status_code": status})()


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


JUDGED: list[tuple[BaseException, ErrorType, str]] = [
    (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), CRITICAL, "gpu_memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), CRITICAL, "gpu_memory"),
    (RuntimeError("CUDA error: out of memory"), CRITICAL, "gpu_memory"),
    (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), CRITICAL, "gpu_memory"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), CRITICAL, "gpu_memory"),
    (RuntimeError("CUDA error: device-side assert triggered"), CRITICAL, "gpu"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), CRITICAL, "memory"),
    (MemoryError(), CRITICAL, "memory"),
    (OSError(errno.ENOSPC, "No space left on device"), CRITICAL, "disk_full"),
    (RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 704 vs 662"), CRITICAL, "disk_full"),
    (sqlite3.OperationalError("database or disk is full"), CRITICAL, "disk_full"),
    (RuntimeError("Error(s) in loading state_dict for WanTransformer3DModel"), CRITICAL, "model"),
    (OSError("x does not appear to have a file named config.json"), CRITICAL, "model"),
    (NotImplementedError("Cannot copy out of meta tensor; no data!"), CRITICAL, "model"),
    (ModuleNotFoundError("No module named 'diffusers'"), CRITICAL, "installation"),
    (CriticalError("the cache cannot be written"), CRITICAL, "unusable"),
    (UserError("the preset cannot be read"), CRITICAL, "user"),
    (KeyboardInterrupt(), CRITICAL, "interrupted"),
    (caused(RuntimeError("pipeline failed"), MemoryError()), CRITICAL, "memory"),
    (SampleError("clip is empty", path="a.mp4"), RECOVERABLE, "sample"),
    (caused(SampleError("frame too large"), MemoryError()), RECOVERABLE, "memory"),
    (EntryError("checksum differs"), RECOVERABLE, "cache_entry"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a.mp4"), RECOVERABLE, "file_missing"),
    (OSError(errno.EIO, "Input/output error", "a.mp4"), RECOVERABLE, "io"),
    (ConnectionResetError(), RECOVERABLE, "network"),
    (TimeoutError("timed out"), RECOVERABLE, "timeout"),
    (OSError(errno.EBUSY, "busy"), RECOVERABLE, "file_in_use"),
    (BlockingIOError(errno.EAGAIN, "again"), RECOVERABLE, "file_in_use"),
    (sqlite3.OperationalError("database is locked"), RECOVERABLE, "file_in_use"),
    (HTTPStatusError(503), RECOVERABLE, "network"),
    (HTTPStatusError(404), RECOVERABLE, "http"),
    (urllib.error.HTTPError("http://x", 429, "slow down", {}, None), RECOVERABLE, "network"),  # type: ignore[arg-type]
    (urllib.error.URLError(ConnectionRefusedError()), RECOVERABLE, "network"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), RECOVERABLE, "format"),
    (ValueError("whatever"), RECOVERABLE, "other"),
    (UserWarning("odd frame rate"), WARNING, "warning"),
    (ResourceWarning(), WARNING, "warning"),
]


@pytest.fixture
def manager() -> ErrorRecoveryManager:
    return ErrorRecoveryManager(Settings())


@pytest.mark.parametrize(("error", "expected", "kind"), JUDGED, ids=lambda value: str(value)[:40])
def test_errors_are_judged_by_class_number_and_message(
    manager: ErrorRecoveryManager, error: BaseException, expected: ErrorType, kind: str
) -> None:
    assert manager.classify_error(error, {}) is expected
    assert failure_kind(error) == kind


@pytest.mark.skipif(sys.platform == "win32", reason="there the number means a file in use")
def test_a_forbidden_file_is_skipped_and_not_tried_again(manager: ErrorRecoveryManager) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "a.mp4")
    assert manager.classify_error(error) is RECOVERABLE
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "context", "expected"),
    [
        (KeyError("fps"), {"optional": True}, WARNING),
        (ValueError("bad weights"), {"stage": "model_load"}, CRITICAL),
        (FileNotFoundError("model.safetensors"), {"stage": "model_load"}, CRITICAL),
        (ConnectionResetError(), {"stage": "model_load"}, RECOVERABLE),
        (EntryError("checksum differs"), {"unrecoverable": True}, CRITICAL),
        (OSError(errno.ENOSPC, "full"), {"optional": True}, CRITICAL),
        (SampleError("x", context={"kind": "decode"}), {}, RECOVERABLE),
    ],
)
def test_the_context_weighs_in(
    manager: ErrorRecoveryManager, error: Exception, context: dict[str, Any], expected: ErrorType
) -> None:
    assert manager.classify_error(error, context) is expected


def test_an_error_that_is_its_own_cause_is_judged(manager: ErrorRecoveryManager) -> None:
    error = RuntimeError("a")
    other = caused(RuntimeError("b"), error)
    error.__cause__ = other
    assert manager.classify_error(error) is RECOVERABLE


def test_each_type_has_its_plain_strategy(manager: ErrorRecoveryManager) -> None:
    assert manager.select_recovery_strategy(CRITICAL) is RecoveryStrategy.STOP
    assert manager.select_recovery_strategy(RECOVERABLE) is RecoveryStrategy.SKIP
    assert manager.select_recovery_strategy(WARNING) is RecoveryStrategy.CONTINUE


def test_transient_errors_are_retried_three_times_and_then_skipped(manager: ErrorRecoveryManager) -> None:
    chosen = [
        manager.select_recovery_strategy(RECOVERABLE, ConnectionError(), module="m", failure_count=n) for n in range(5)
    ]
    assert chosen == [RecoveryStrategy.RETRY] * 3 + [RecoveryStrategy.SKIP] * 2


def test_format_and_metadata_fall_back(manager: ErrorRecoveryManager) -> None:
    unreadable = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")
    assert manager.select_recovery_strategy(RECOVERABLE, unreadable) is RecoveryStrategy.FALLBACK


def test_a_module_whose_breaker_is_open_is_left_alone(manager: ErrorRecoveryManager) -> None:
    for _ in range(10):
        manager.record("Loader", ValueError("x"))
    assert manager.breaker("Loader").state == "open"
    chosen = manager.select_recovery_strategy(RECOVERABLE, ConnectionError(), module="Loader")
    assert chosen is RecoveryStrategy.CIRCUIT_BREAK
    assert manager.select_recovery_strategy(CRITICAL, MemoryError(), module="Loader") is RecoveryStrategy.STOP
    assert manager.select_recovery_strategy(RECOVERABLE, module="Other") is RecoveryStrategy.SKIP


def test_warnings_open_no_breaker(manager: ErrorRecoveryManager) -> None:
    for _ in range(100):
        manager.record("Loader", UserWarning("odd"))
    assert manager.breaker("Loader").state == "closed"


class Flaky:
    """Fails with the given errors, then returns its argument."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, value: str) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return value


def waiting_manager(waits: list[float], **values: Any) -> ErrorRecoveryManager:
    return ErrorRecoveryManager(Settings(**values), sleep=waits.append, random=random.Random(1))


def test_three_hiccups_are_survived_with_growing_waits() -> None:
    waits: list[float] = []
    manager = waiting_manager(waits, retry_base_seconds=2.0)
    function = Flaky(ConnectionError(), TimeoutError(), OSError(errno.EBUSY, "busy"))
    assert manager.run("download", function, "value") == "value"
    assert function.calls == 4
    assert len(waits) == 3
    assert all(0 <= wait <= 2.0 * 2**number for number, wait in enumerate(waits))
    assert (manager.retries, manager.seconds_waited) == (3, pytest.approx(sum(waits)))


def test_a_fourth_hiccup_is_raised_as_it_came() -> None:
    manager = waiting_manager([])
    last = ConnectionError("the fourth")
    function = Flaky(ConnectionError(), ConnectionError(), ConnectionError(), last)
    with pytest.raises(ConnectionError) as caught:
        manager.run("download", function, "value")
    assert caught.value is last
    assert function.calls == 4


@pytest.mark.parametrize("error", [ValueError(), SampleError("hangs"), MemoryError(), OSError(errno.ENOSPC, "full")])
def test_what_will_not_change_is_not_tried_again(error: Exception) -> None:
    waits: list[float] = []
    with pytest.raises(type(error)):
        waiting_manager(waits).run("load", Flaky(error), "value")
    assert waits == []


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(), retry=st.integers(0, 5000), base=st.floats(0, 60))
def test_waits_are_never_negative_and_never_endless(seed: int, retry: int, base: float) -> None:
    from wan_fixes.health.retry import LONGEST_WAIT_SECONDS, backoff_seconds

    wait = backoff_seconds(retry, base, random.Random(seed))
    assert 0 <= wait <= min(LONGEST_WAIT_SECONDS, base * 2.0 ** min(retry, 60))


def test_many_threads_do_not_come_back_together() -> None:
    from wan_fixes.health.retry import backoff_seconds

    rng = random.Random(0)
    waits = sorted(backoff_seconds(3, 1.0, rng) for _ in range(200))
    assert waits[0] < 0.5
    assert waits[-1] > 7.5


def test_patterns_name_module_kind_folder_and_suffix(manager: ErrorRecoveryManager, tmp_path: Path) -> None:
    for number in range(6):
        manager.record("Loader", OSError(errno.EIO, "bad"), item=str(tmp_path / "disk" / f"{number}.avi"))
        manager.record("Loader")
    manager.record("Captions", ValueError("x"), item="a.txt")
    first, second = manager.failure_patterns()
    assert (first.module, first.kind, first.count, first.rate) == ("Loader", "io", 6, 0.5)
    assert first.folder == str(tmp_path / "disk")
    assert first.suffix == ".avi"
    assert len(first.examples) == 3
    assert (second.module, second.count, second.folder) == ("Captions", 1, "")


def test_a_folder_that_holds_only_some_failures_is_not_blamed(manager: ErrorRecoveryManager) -> None:
    for number in range(10):
        manager.record("Loader", OSError("bad"), item=f"/data/{'a' if number % 2 else 'b'}/{number}.mp4")
    (pattern,) = manager.failure_patterns()
    assert pattern.folder == ""
    assert pattern.suffix == ".mp4"


def test_exhausted_memory_lowers_the_threads_once_for_each_new_failure(
    manager: ErrorRecoveryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    pattern = FailurePattern("Loader", "memory", 1, 0.1)
    manager.reconfigure_pipeline([pattern])
    assert manager.policy.max_threads == 8
    assert manager.reconfigure_pipeline([pattern]) == []
    assert manager.policy.max_threads == 8
    manager.reconfigure_pipeline([FailurePattern("Loader", "memory", 2, 0.2)])
    assert manager.policy.max_threads == 4


def test_threads_never_fall_below_one(manager: ErrorRecoveryManager) -> None:
    for count in range(1, 20):
        manager.reconfigure_pipeline([FailurePattern("Loader", "gpu_memory", count, 1.0)])
    assert manager.policy.max_threads in (None, 1)


def test_a_module_that_always_fails_is_disabled_and_not_retried(manager: ErrorRecoveryManager) -> None:
    for number in range(20):
        manager.record("Augment", RuntimeError("no kernel"), item=f"{number}.mp4")
    (sentence,) = manager.reconfigure_pipeline(manager.failure_patterns())
    assert "Augment" in sentence
    assert manager.policy.disabled_modules == {"Augment"}
    assert not manager.should_retry_operation("Augment", 0)
    assert manager.should_retry_operation("Other", 0)
    assert not manager.breaker("Augment").allow()
    assert manager.breaker("Other").allow()


@pytest.mark.parametrize("kind", ["decode", "sample", "file_missing"])
def test_bad_files_never_disable_the_module_that_finds_them(manager: ErrorRecoveryManager, kind: str) -> None:
    assert manager.reconfigure_pipeline([FailurePattern("Loader", kind, 500, 1.0)]) == []
    assert manager.policy.disabled_modules == frozenset()


def test_a_network_that_stays_away_is_asked_less_often(manager: ErrorRecoveryManager) -> None:
    (sentence,) = manager.reconfigure_pipeline([FailurePattern("Download", "network", 50, 0.9)])
    assert "one retry" in sentence
    assert manager.should_retry_operation("Download", 0)
    assert not manager.should_retry_operation("Download", 1)


def test_nothing_to_see_changes_nothing(manager: ErrorRecoveryManager) -> None:
    before = manager.policy
    assert manager.reconfigure_pipeline([]) == []
    assert manager.reconfigure_pipeline([FailurePattern("Loader", "network", 1, 0.01)]) == []
    assert manager.policy == before


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no message today")


ERRORS = st.one_of(
    st.builds(
        SampleError,
        st.text(min_size=1),
        path=st.none() | st.text(),
        reason=st.text(),
        fix=st.text(),
        module=st.none() | st.text(min_size=1),
    ),
    st.builds(EntryError, st.text()),
    st.builds(lambda cls, text: cls(text), st.sampled_from([ValueError, RuntimeError, TypeError, KeyError]), st.text()),
    st.builds(OSError, st.sampled_from(sorted(errno.errorcode)), st.text(), st.text(min_size=1)),
    st.sampled_from([MemoryError(), UnreadableError(), AssertionError(), UserWarning("odd"), StopIteration()]),
)
NAMES = st.just("") | st.text(alphabet=st.characters(), max_size=60)


@settings(max_examples=150, deadline=None)
@given(failures=st.lists(st.tuples(NAMES, NAMES, ERRORS), min_size=1, max_size=5))
def test_every_failure_is_on_record_with_module_item_and_cause(
    tmp_path_factory: pytest.TempPathFactory, failures: list[tuple[str, str, Exception]]
) -> None:
    """Feature: wan-training-pipeline-fixes, Property 3: Error Diagnostic Completeness. For any failure the record
    names the specific module, the data item and the cause."""
    path = tmp_path_factory.getbasetemp() / "property3.sqlite"
    manager = ErrorRecoveryManager(Settings())
    with RunDatabase(path) as database:
        run = database.start_run("train")
        for number, (module, item, error) in enumerate(failures):
            record = manager.record(module, error, item=f"{number}{item}")
            assert record is not None
            run.sample(record.item, "failed", record.module, record.cause, record.fix, record.kind)
        run.finish()
    rows = RunDatabase.open_readonly(path).samples(run.id, "failed")
    assert len(rows) == len(failures)
    for number, ((module, item, error), row) in enumerate(zip(failures, rows, strict=True)):
        assert row.path == f"{number}{item}".encode("utf-8", "backslashreplace").decode()
        named = module or (error.module if isinstance(error, SampleError) else "") or "unknown module"
        assert row.module == named.encode("utf-8", "backslashreplace").decode()
        assert row.reason
        assert row.kind
        if isinstance(error, SampleError):
            assert row.reason == (f"{error.what}: {error.reason}" if error.reason else error.what)
            assert row.fix == error.fix
        elif not isinstance(error, EntryError):
            assert type(error).__name__ in row.reason


def test_the_health_room_does_not_load_torch() -> None:
    code = (
        "import sys, wan_fixes.health.logs, wan_fixes.health as h; h.memory_stats(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
