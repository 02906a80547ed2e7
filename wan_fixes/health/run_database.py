"""The run database: the one place where counters, errors and events of every run live."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wan_fixes.errors import UserError
from wan_fixes.health.process import ProcessIdentity
from wan_fixes.health.run import Run, _json, _text
from wan_fixes.health.run_reader import RunReader
from wan_fixes.health.run_records import RunStatus
from wan_fixes.health.run_schema import TABLES_OF_RUNS
from wan_fixes.health.run_writer import BatchedWriter, Row
from wan_fixes.health.text import plain

HEARTBEAT_SECONDS: Final = 5.0
KEPT_RUNS: Final = 50
KEPT_DAYS: Final = 90.0
_DAY: Final = 86_400.0

logger = logging.getLogger(__name__)

_INSERT_RUN = (
    "INSERT OR REPLACE INTO runs (id, kind, config, status, started, last_seen, pid, process_started, host) "
    "VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?)"
)


class RunDatabase(RunReader):
    """Writing and reading; many processes may read while one or several write.

    Rows are written from a thread once a second, so a killed process loses the last second at most. Reading here
    writes first what waits, so that one sees one's own rows. Close it, or use it in a `with`.

    Raises `UserError` when the database cannot be kept at `path`; a damaged one is set aside and a fresh one begun.
    """

    def __init__(
        self, path: str | Path, clock: Callable[[], float] = time.time, *, kept_days: float = KEPT_DAYS
    ) -> None:
        super().__init__(path, clock)
        self._kept_days = kept_days
        self._process = ProcessIdentity.current()
        self._open_runs: dict[int, Run] = {}
        self._open_runs_lock = threading.Lock()
        self._last_beat = clock()
        self._writer = BatchedWriter(self.path, self._rows_of_now, self._rows_of_open_runs)

    @staticmethod
    def open_readonly(path: str | Path, clock: Callable[[], float] = time.time) -> RunReader:
        """Open for reading only, also in a folder that cannot be written to. Raises `UserError` when there is none."""
        reader = RunReader(path, clock)
        reader.check()
        return reader

    def start_run(self, kind: str, config: Mapping[str, Any] | None = None) -> Run:
        """Begin a run; `config` is kept with secrets masked.

        Of the runs before it the latest 49 are kept, as long as they ended less than `kept_days` days ago.

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
        run = Run(run_id, self, (_INSERT_RUN, (run_id, *facts)), born=(now, process.pid, facts[-1]))
        with self._open_runs_lock:
            self._open_runs[run_id] = run
        self._prune(run_id, now)
        return run

    def _prune(self, latest: int, now: float) -> None:
        """Forget the runs that are too many or too old; the room that they took is given back at the next opening."""
        old = "SELECT id FROM runs WHERE id <= ? OR last_seen < ? AND id < ?"
        limits = (latest - KEPT_RUNS, now - self._kept_days * _DAY, latest)
        for table in TABLES_OF_RUNS:
            self._put(f"DELETE FROM {table} WHERE run_id IN ({old})", limits)
        self._put(f"DELETE FROM runs WHERE id IN ({old})", limits)

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

    def _before_reading(self) -> None:
        self.flush()

    def _put(self, statement: str, parameters: Sequence[Any]) -> None:
        self._writer.put(statement, parameters)

    def _finish(self, run: Run, status: RunStatus) -> None:
        now = self._clock()
        ending = "UPDATE runs SET status = ?, finished = ?, last_seen = ? WHERE id = ? AND status = 'running'"
        self._put(ending, (status, now, now, run.id))
        self.flush()
        with self._open_runs_lock:  # only now: until it is written, a database made anew needs the run's first row
            self._open_runs.pop(run.id, None)

    def _rows_of_now(self) -> list[Row]:
        """What each round writes besides what was put: counts that have changed, and now and then a heartbeat."""
        runs, now = self._running(), self._clock()
        rows = [row for run in runs for row in run.take_changes()]
        if not 0 <= now - self._last_beat < HEARTBEAT_SECONDS:  # also where the clock was set back
            self._last_beat = now
            rows += [("UPDATE runs SET last_seen = ? WHERE id = ?", (now, run.id)) for run in runs]
        return rows

    def _rows_of_open_runs(self, connection: sqlite3.Connection) -> list[Row] | None:
        """What a database must hold that may be another by now; None where a run of others has a number of ours."""
        runs = self._running()
        lost = [run for run in runs if not _is_ours_or_free(connection, run)]
        if not lost:
            return [row for run in runs for row in run.rows_anew()]
        with self._open_runs_lock:
            for run in lost:
                self._open_runs.pop(run.id, None)
                run.is_lost = True
        logger.warning("%s: another process began it anew: the record of this run ends here", plain(self.path))
        return None

    def _running(self) -> list[Run]:
        with self._open_runs_lock:
            return list(self._open_runs.values())


def _is_ours_or_free(connection: sqlite3.Connection, run: Run) -> bool:
    row = connection.execute("SELECT started, pid, host FROM runs WHERE id = ?", (run.id,)).fetchone()
    return row is None or row == run.born
