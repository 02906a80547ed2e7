"""Reads runs, samples, events, steps and counters from the run database."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.health.process import ProcessIdentity
from wan_fixes.health.run_records import EventRecord, ModuleTime, RunRecord, RunStatus, SampleRecord, StepRecord
from wan_fixes.health.run_schema import DatabaseFailure, open_for_reading

# A run on another machine shows life only by its heartbeat in the database; several beats may be late.
_SILENT_SECONDS = 60.0

_RUN_COLUMNS = "id, kind, config, status, started, finished, last_seen, pid, process_started, host"


class RunReader:
    """Reading, without ever writing a byte; other processes may write meanwhile. Safe to use from several threads.

    The file is opened for each question, so that a database made anew is seen, and nobody is kept from moving it.
    Every method raises `UserError` when the database is missing or cannot be read.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock

    def check(self) -> None:
        """Raise `UserError` when the database is missing or cannot be read."""
        self._rows("SELECT 1 FROM runs LIMIT 1")

    def runs(self) -> list[RunRecord]:
        """All runs, the latest first."""
        return [self._run(row) for row in self._rows(f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY id DESC")]

    def run(self, run_id: int) -> RunRecord | None:
        """The run with this number, or None."""
        rows = self._rows(f"SELECT {_RUN_COLUMNS} FROM runs WHERE id = ?", run_id)
        return self._run(rows[0]) if rows else None

    def latest_run(self, kind: str | None = None) -> RunRecord | None:
        """The run started last (of this kind), or None when there is none."""
        rows = self._rows(
            f"SELECT {_RUN_COLUMNS} FROM runs WHERE ? IS NULL OR kind = ? ORDER BY id DESC LIMIT 1", kind, kind
        )
        return self._run(rows[0]) if rows else None

    def samples(self, run_id: int, status: str | None = None) -> list[SampleRecord]:
        """Verdicts and warnings of a run (with this status), in the order in which paths were first met."""
        rows = self._rows(
            "SELECT path, status, module, reason, fix, kind, time FROM samples "
            "WHERE run_id = ? AND (? IS NULL OR status = ?) ORDER BY id",
            run_id,
            status,
            status,
        )
        return [SampleRecord(*row) for row in rows]

    def sample_counts(self, run_id: int) -> dict[str, int]:
        """How many samples are "valid", "skipped", "failed", and how many carry a "warning"."""
        rows = self._rows("SELECT status, COUNT(DISTINCT path) FROM samples WHERE run_id = ? GROUP BY status", run_id)
        return {"valid": 0, "skipped": 0, "failed": 0, "warning": 0} | dict(rows)

    def events(self, run_id: int, after: int = 0) -> list[EventRecord]:
        """Events of a run whose id is greater than `after`, oldest first."""
        rows = self._rows(
            "SELECT id, time, kind, message, facts FROM events WHERE run_id = ? AND id > ? ORDER BY id", run_id, after
        )
        return [
            EventRecord(number, moment, kind, message, _json_object(facts))
            for number, moment, kind, message, facts in rows
        ]

    def last_event(self, run_id: int) -> EventRecord | None:
        """The latest event of a run, or None when there is none."""
        ((latest,),) = self._rows("SELECT MAX(id) FROM events WHERE run_id = ?", run_id)
        return None if latest is None else self.events(run_id, after=latest - 1)[0]

    def step_count(self, run_id: int) -> int:
        """How many steps of a run are recorded."""
        ((count,),) = self._rows("SELECT COUNT(*) FROM steps WHERE run_id = ?", run_id)
        return int(count)

    def steps(self, run_id: int, last: int | None = None) -> list[StepRecord]:
        """Steps of a run in order; with `last`, only so many of the latest."""
        rows = self._rows(
            "SELECT step, time, loss, lr, seconds FROM steps WHERE run_id = ? ORDER BY step DESC LIMIT ?",
            run_id,
            -1 if last is None else last,
        )
        return [
            StepRecord(row[0], row[1], *(math.nan if value is None else value for value in row[2:]))
            for row in reversed(rows)
        ]

    def counters_of(self, run_id: int) -> dict[str, float]:
        """The latest value of each counter of a run."""
        return dict(self._rows("SELECT name, value FROM counters WHERE run_id = ? ORDER BY name", run_id))

    def module_times(self, run_id: int) -> list[ModuleTime]:
        """Time by module, the slowest first."""
        rows = self._rows(
            "SELECT module, seconds, items FROM module_times WHERE run_id = ? ORDER BY seconds DESC, module", run_id
        )
        return [ModuleTime(*row) for row in rows]

    def _rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            with contextlib.closing(open_for_reading(self.path)) as connection:
                return connection.execute(statement, parameters).fetchall()
        except DatabaseFailure as error:
            raise UserError(
                "the run database cannot be read",
                path=self.path,
                reason=str(error),
                fix="the next run sets a damaged file aside and begins a fresh one",
            ) from error

    def _run(self, row: Sequence[Any]) -> RunRecord:
        run_id, kind, config, status, started, finished, last_seen, pid, process_started, host = row
        if status == "running":
            status = self._status_of_unfinished(ProcessIdentity(pid, process_started, host), last_seen)
        return RunRecord(run_id, kind, _json_object(config), status, started, finished, last_seen, pid, host)

    def _status_of_unfinished(self, process: ProcessIdentity, last_seen: float) -> RunStatus:
        alive = process.is_alive()
        if alive is None:
            alive = self._clock() - last_seen < _SILENT_SECONDS
        return "running" if alive else "interrupted"


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:  # damaged within the text
        value = None
    return value if isinstance(value, dict) else {"unreadable": text}
