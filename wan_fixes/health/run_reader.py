"""Reads runs, samples, events, steps and counters from the run database."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.health.process import ProcessIdentity
from wan_fixes.health.run import VALID, WARNED
from wan_fixes.health.run_records import (
    SILENT_SECONDS,
    EventRecord,
    GaugeRecord,
    RunRecord,
    RunStatus,
    SampleGroup,
    SampleRecord,
    SampleStatus,
    StepRecord,
)
from wan_fixes.health.run_schema import DatabaseFailure, open_for_reading

_SEARCHED = ("path", "reason", "module", "kind")
_ESCAPE = "\\"
_LIKE_MARKS = re.compile(r"[%_\\]")  # what LIKE takes for more than itself
_COUNTED = "SELECT name, CAST(value AS INTEGER) FROM counters WHERE run_id = ? AND name IN (?, ?)"
_RUN_COLUMNS = "id, kind, config, status, started, finished, last_seen, pid, process_started, host"


class RunReader:
    """Reading, without ever writing a byte; other processes may write meanwhile. Safe to use from several threads.

    The file is opened for each question, so that a database made anew is seen, and nobody is kept from moving it; the
    questions within `one_moment` are answered from one state of it.

    Every method raises `UserError` when the database is missing or cannot be read.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        self._held = threading.local()
        self._is_local = False  # as far as is known

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """While in it, this thread's questions are all answered as of the first one, whatever is written meanwhile.

        One within another changes nothing.
        """
        if getattr(self._held, "connection", None) is not None:
            yield
            return
        self._before_reading()
        with self._failures_named(), contextlib.closing(self._open()) as connection:
            connection.execute("BEGIN")
            self._held.connection = connection
            try:
                yield
            finally:
                self._held.connection = None

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

    def samples(
        self,
        run_id: int,
        *statuses: SampleStatus,
        containing: str = "",
        most: int | None = None,
    ) -> list[SampleRecord]:
        """What was left out ("skipped", "failed") and warned of in a run, in the order in which paths were first met.

        Valid samples are counted, and have no records.

        Parameters
        ----------
        statuses:
            Only these; all where none is given.
        containing:
            Only where path, reason, module or kind contains this text, whatever its case.
        most:
            At most so many, the first ones.
        """
        which, parameters = _which(run_id, statuses, containing)
        rows = self._rows(
            f"SELECT path, status, module, reason, fix, kind, time FROM samples WHERE {which} ORDER BY id LIMIT ?",
            *parameters,
            -1 if most is None else most,
        )
        return [SampleRecord(*row) for row in rows]

    def count_samples(self, run_id: int, *statuses: SampleStatus, containing: str = "") -> int:
        """How many records `samples` gives of these."""
        which, parameters = _which(run_id, statuses, containing)
        ((count,),) = self._rows(f"SELECT COUNT(*) FROM samples WHERE {which}", *parameters)
        return int(count)

    def samples_mark(self, run_id: int) -> tuple[Any, ...]:
        """Something that differs as soon as the records of `samples` differ, and costs less to read."""
        of_run = "FROM samples WHERE run_id = ?"
        (mark,) = self._rows(f"SELECT (SELECT COUNT(*) {of_run}), (SELECT MAX(time) {of_run})", run_id, run_id)
        return mark

    def sample_counts(self, run_id: int) -> dict[str, int]:
        """How many samples are "valid", "skipped", "failed", and how many carry a "warning"."""
        return self.counts_of(run_id, self.sample_groups(run_id))

    def counts_of(self, run_id: int, groups: Sequence[SampleGroup]) -> dict[str, int]:
        """What `sample_counts` gives, from the groups of the same moment: reading thousands of records takes time."""
        counted = {VALID: 0, WARNED: 0} | dict(self._rows(_COUNTED, run_id, VALID, WARNED))
        counts = {"valid": counted[VALID], "skipped": 0, "failed": 0}
        for group in groups:
            if group.status in counts:
                counts[group.status] += group.count
        return counts | {"warning": counted[WARNED]}

    def valid_samples(self, run_id: int) -> int:
        """How many samples are "valid", which takes no counting."""
        rows = self._rows("SELECT CAST(value AS INTEGER) FROM counters WHERE run_id = ? AND name = ?", run_id, VALID)
        return int(rows[0][0]) if rows else 0

    def sample_groups(self, run_id: int) -> list[SampleGroup]:
        """How many records there are of each status, module and kind of failure, the most first."""
        rows = self._rows(
            "SELECT status, module, kind, COUNT(*) AS number FROM samples WHERE run_id = ? "
            "GROUP BY status, module, kind ORDER BY number DESC, status, module, kind",
            run_id,
        )
        return [SampleGroup(*row) for row in rows]

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
        """How many steps of a run were recorded."""
        ((count,),) = self._rows("SELECT SUM(count) FROM steps WHERE run_id = ?", run_id)
        return int(count or 0)

    def steps(self, run_id: int, *, latest: int | None = None) -> list[StepRecord]:
        """Steps of a run in order: each by itself as long as there are few, then several put together.

        All records, or so many of the `latest`.
        """
        rows = self._rows(
            "SELECT step, time, loss, lr, seconds, count, finite FROM steps WHERE run_id = ? ORDER BY at DESC LIMIT ?",
            run_id,
            -1 if latest is None else latest,
        )
        return [
            StepRecord(step, moment, _number(loss), _number(lr), _number(seconds), count, finite)
            for step, moment, loss, lr, seconds, count, finite in reversed(rows)
        ]

    def counters_of(self, run_id: int) -> dict[str, float]:
        """The latest value of each counter of a run."""
        return dict(
            self._rows(
                "SELECT name, value FROM counters WHERE run_id = ? AND name NOT IN (?, ?) ORDER BY name",
                run_id,
                VALID,
                WARNED,
            )
        )

    def gauges(self, run_id: int, *, latest: int | None = None) -> list[GaugeRecord]:
        """What was measured in the course of a run, in order: all of it, or so many of the `latest`."""
        rows = self._rows(
            "SELECT time, value FROM gauges WHERE run_id = ? ORDER BY at DESC LIMIT ?",
            run_id,
            -1 if latest is None else latest,
        )
        return [GaugeRecord(moment, _json_object(value)) for moment, value in reversed(rows)]

    def states(self, run_id: int, *names: str) -> dict[str, Any]:
        """What each thing recorded by `Run.state` was like the last time; only those with these names, if any."""
        wanted = f"AND name IN ({', '.join('?' * len(names))}) " if names else ""
        rows = self._rows(f"SELECT name, value FROM states WHERE run_id = ? {wanted}ORDER BY name", run_id, *names)
        return {name: _json_value(value) for name, value in rows}

    def _open(self) -> sqlite3.Connection:
        connection = open_for_reading(self.path, is_local=self._is_local)
        self._is_local = True
        return connection

    def _before_reading(self) -> None:
        """Called before the file is read."""

    def _rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        held: sqlite3.Connection | None = getattr(self._held, "connection", None)
        if held is not None:
            return held.execute(statement, parameters).fetchall()
        self._before_reading()
        with self._failures_named(), contextlib.closing(self._open()) as connection:
            return connection.execute(statement, parameters).fetchall()

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
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
            alive = self._clock() - last_seen < SILENT_SECONDS  # on another machine the heartbeat is all there is
        return "running" if alive else "interrupted"


def _number(value: float | None) -> float:
    """SQLite has no NaN, and NULL instead."""
    return math.nan if value is None else value


def _json_object(text: str) -> dict[str, Any]:
    value = _json_value(text)
    return value if isinstance(value, dict) else {"unreadable": text}


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # damaged within the text
        return None


def _which(run_id: int, statuses: Sequence[SampleStatus], containing: str) -> tuple[str, list[Any]]:
    """The condition for records of samples, and its parameters."""
    conditions = ["run_id = ?"]
    parameters: list[Any] = [run_id, *statuses]
    if statuses:
        conditions.append(f"status IN ({', '.join('?' * len(statuses))})")
    if containing:
        conditions.append(f"({' OR '.join(f'{name} LIKE ? ESCAPE ?' for name in _SEARCHED)})")
        parameters += [f"%{_LIKE_MARKS.sub(_escaped, containing)}%", _ESCAPE] * len(_SEARCHED)
    return " AND ".join(conditions), parameters


def _escaped(mark: re.Match[str]) -> str:
    return _ESCAPE + mark[0]
