"""The run database: the one place where counters, errors and events of every run live."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.health.process import ProcessIdentity
from wan_fixes.health.run_reader import RunReader
from wan_fixes.health.run_records import RunStatus, SampleStatus
from wan_fixes.health.run_writer import BatchedWriter, Row
from wan_fixes.health.taxonomy import FailureRecord
from wan_fixes.health.text import mask_secrets, mask_values

HEARTBEAT_SECONDS = 5.0
_LONGEST_TEXT = 4000  # characters of one message or reason
_LONGEST_READ = 100_000  # characters of it that are searched for secrets
_KEPT_RUNS = 50

_INSERT_RUN = (
    "INSERT OR REPLACE INTO runs (id, kind, config, status, started, last_seen, pid, process_started, host) "
    "VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?)"
)
_INSERT_SAMPLE = (
    "INSERT INTO samples (run_id, path, warning, status, module, reason, fix, kind, time) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, path, warning) DO UPDATE SET "
    "status = excluded.status, module = excluded.module, reason = excluded.reason, fix = excluded.fix, "
    "kind = excluded.kind, time = excluded.time"
)
_ADD_MODULE_TIME = (
    "INSERT INTO module_times (run_id, module, seconds, items) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (run_id, module) DO UPDATE SET seconds = seconds + excluded.seconds, items = items + excluded.items"
)


class RunDatabase(RunReader):
    """Writing and reading; many processes may read while one or several write.

    Rows are written from a thread once a second, so a killed process loses the last second at most. Reading here
    writes first what waits, so that one sees one's own rows. Close it, or use it in a `with`.

    Raises `UserError` when the database cannot be kept at `path`; a damaged one is set aside and a fresh one begun.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, clock)
        self._process = ProcessIdentity.current()
        self._open_runs: dict[int, Row] = {}
        self._open_runs_lock = threading.Lock()
        self._last_beat = clock()
        self._writer = BatchedWriter(self.path, self._heartbeat, self._rows_of_open_runs)

    @staticmethod
    def open_readonly(path: str | Path, clock: Callable[[], float] = time.time) -> RunReader:
        """Open for reading only, also in a folder that cannot be written to. Raises `UserError` when there is none."""
        reader = RunReader(path, clock)
        reader.check()
        return reader

    def start_run(self, kind: str, config: Mapping[str, Any] | None = None) -> Run:
        """Begin a run; `config` is kept with secrets masked. Only the latest 50 runs are kept.

        Raises `UserError` when it cannot be written.
        """
        now = self._clock()
        process = self._process
        facts = (_text(kind), _json(config or {}), now, now, process.pid, process.started, _text(process.host))
        try:
            run_id = self._writer.insert_now(_INSERT_RUN, (None, *facts))
        except sqlite3.Error as error:
            raise UserError(
                "the run cannot be recorded",
                path=self.path,
                reason=str(error),
                fix="check that the disk has space and that no other program holds the file",
            ) from error
        with self._open_runs_lock:
            self._open_runs[run_id] = (_INSERT_RUN, (run_id, *facts))
        for table in ("samples", "events", "steps", "counters", "module_times"):
            self._put(f"DELETE FROM {table} WHERE run_id <= ?", run_id - _KEPT_RUNS)
        self._put("DELETE FROM runs WHERE id <= ?", run_id - _KEPT_RUNS)
        return Run(run_id, self)

    def flush(self) -> None:
        """Wait until everything recorded so far is in the file (or could not be written)."""
        self._writer.flush()

    def close(self) -> None:
        """Write what waits and close the file. Runs not finished will read as interrupted."""
        self._writer.close()

    def __enter__(self) -> RunDatabase:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        self.flush()
        return super()._rows(statement, *parameters)

    def _put(self, statement: str, *parameters: Any) -> None:
        self._writer.put(statement, parameters)

    def _finish(self, run_id: int, status: RunStatus) -> None:
        now = self._clock()
        self._put(
            "UPDATE runs SET status = ?, finished = ?, last_seen = ? WHERE id = ? AND status = 'running'",
            status,
            now,
            now,
            run_id,
        )
        self.flush()
        with self._open_runs_lock:  # only now: until it is written, a database made anew needs the run's first row
            self._open_runs.pop(run_id, None)

    def _heartbeat(self) -> list[Row]:
        now = self._clock()
        if now - self._last_beat < HEARTBEAT_SECONDS:
            return []
        self._last_beat = now
        with self._open_runs_lock:
            return [("UPDATE runs SET last_seen = ? WHERE id = ?", (now, run_id)) for run_id in self._open_runs]

    def _rows_of_open_runs(self) -> list[Row]:
        with self._open_runs_lock:
            return list(self._open_runs.values())


class Run:
    """One run being recorded. Every method returns at once and is safe to call from any thread.

    In a `with` it finishes by itself: "finished", "interrupted" after Ctrl-C, "failed" after any other exception.
    """

    __slots__ = ("_database", "id")

    def __init__(self, run_id: int, database: RunDatabase) -> None:
        self.id = run_id
        self._database = database

    def event(self, kind: str, message: str, /, **facts: Any) -> None:
        """Record that something happened; `facts` are kept as JSON."""
        self._database._put(
            "INSERT INTO events (run_id, time, kind, message, facts) VALUES (?, ?, ?, ?, ?)",
            self.id,
            self._now(),
            _text(kind),
            _text(message),
            _json(facts),
        )

    def sample(
        self, path: str, status: SampleStatus, module: str = "", reason: str = "", fix: str = "", kind: str = ""
    ) -> None:
        """Record the verdict on a sample, in place of an earlier one, or one more warning beside it."""
        warning = _text(reason) if status == "warning" else ""
        texts = (_text(text) for text in (status, module, reason, fix, kind))
        self._database._put(_INSERT_SAMPLE, self.id, _text(path), warning, *texts, self._now())

    def failure(self, record: FailureRecord, status: SampleStatus = "failed") -> None:
        """Record a failure as `ErrorRecoveryManager.record` returned it."""
        self.sample(record.item, status, record.module, record.cause, record.fix, record.kind)

    def counters(self, values: Mapping[str, float]) -> None:
        """Set counters to their values of now, for example from `Metrics.snapshot`."""
        for name, value in values.items():
            self._database._put(
                "INSERT OR REPLACE INTO counters (run_id, name, value) VALUES (?, ?, ?)",
                self.id,
                _text(name),
                float(value),
            )

    def step(self, global_step: int, loss: float, lr: float, seconds: float) -> None:
        """Record an optimizer step that took `seconds`."""
        self._database._put(
            "INSERT OR REPLACE INTO steps (run_id, step, time, loss, lr, seconds) VALUES (?, ?, ?, ?, ?, ?)",
            self.id,
            int(global_step),
            self._now(),
            float(loss),
            float(lr),
            float(seconds),
        )

    def module_time(self, module: str, seconds: float, items: int) -> None:
        """Add to the time that `module` took, and to the items that it made."""
        self._database._put(_ADD_MODULE_TIME, self.id, _text(module), float(seconds), int(items))

    def finish(self, status: RunStatus = "finished") -> None:
        """End the run ("finished", "interrupted", "failed") and write everything. Only the first call counts."""
        self._database._finish(self.id, status)

    def flush(self) -> None:
        """Wait until everything recorded so far is in the file."""
        self._database.flush()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("finished")
        else:
            self.finish("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _now(self) -> float:
        return self._database._clock()


def _text(value: object) -> str:
    """Text that SQLite can hold: bounded, secrets masked, with file names that are no UTF-8 spelled out."""
    text = mask_secrets(str(value)[:_LONGEST_READ])[:_LONGEST_TEXT]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(mask_values(value), default=str)
