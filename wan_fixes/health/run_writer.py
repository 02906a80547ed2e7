"""Writes to the run database from a thread of its own, once a second, so that training never waits for the disk."""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from wan_fixes.errors import UserError
from wan_fixes.health.run_schema import is_damage, open_for_writing, set_aside
from wan_fixes.health.text import plain

INTERVAL_SECONDS = 1.0
MAX_WAITING_ROWS = 50_000
_EARLY_WRITE_ROWS = 2_000
_FLUSH_SECONDS = 30.0

Row: TypeAlias = tuple[str, Sequence[Any]]

logger = logging.getLogger(__name__)


class BatchedWriter:
    """Takes statements from any thread, and writes them in order, many in one transaction.

    What cannot be written now (disk full, file locked) is kept and tried again; when more than `MAX_WAITING_ROWS` wait,
    the oldest are dropped. A database found damaged is set aside, and one that was deleted is made anew.

    Parameters
    ----------
    before_write:
        Called in the writer's thread before each round; returns rows to write first.
    after_restart:
        Called when a fresh database has taken the place of the old one; returns the rows that it must hold.
    """

    def __init__(
        self, path: Path, before_write: Callable[[], list[Row]], after_restart: Callable[[], list[Row]]
    ) -> None:
        self._path = path
        self._before_write = before_write
        self._after_restart = after_restart
        self._connection = open_for_writing(path)
        self._connection_lock = threading.Lock()
        self._waiting: deque[Row] = deque()
        self._changed = threading.Condition()
        self._asked = self._answered = 0  # numbers of flushes
        self._closing = False
        self._pid = os.getpid()
        self._complained: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="wan-run-database", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, statement: str, parameters: Sequence[Any]) -> None:
        """Have `statement` executed within the next second. Never blocks, never raises; ignored after `close`."""
        with self._changed:
            if self._closing:
                return
            self._waiting.append((statement, parameters))
            if len(self._waiting) > MAX_WAITING_ROWS:
                self._waiting.popleft()
                self._complain(
                    "dropped", "more records than can be kept are waiting to be written; the oldest are lost"
                )
            if len(self._waiting) == _EARLY_WRITE_ROWS:
                self._changed.notify_all()

    def insert_now(self, statement: str, parameters: Sequence[Any]) -> int:
        """Execute `statement` at once and return the new row's id. Raises `sqlite3.Error`."""
        with self._connection_lock:
            self._restart_if_deleted()
            try:
                row_id = self._connection.execute(statement, parameters).lastrowid
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._restart_beside_the_damaged(error)
                row_id = self._connection.execute(statement, parameters).lastrowid
        return row_id or 0

    def flush(self) -> None:
        """Wait until everything put before has been written, or could not be."""
        with self._changed:
            if self._closing or not self._thread.is_alive():
                return
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answered >= mine or self._closing, timeout=_FLUSH_SECONDS)

    def close(self) -> None:
        """Write what waits and close the database."""
        if os.getpid() != self._pid:
            return  # a forked child must leave its parent's connection alone: https://sqlite.org/howtocorrupt.html, 2.6
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        self._thread.join(_FLUSH_SECONDS)
        if self._waiting:
            logger.warning("%d records could not be written to %s", len(self._waiting), plain(self._path))
        with self._connection_lock:
            self._connection.close()

    def _work(self) -> None:
        last = False
        while not last:
            with self._changed:
                self._changed.wait_for(self._is_due, timeout=INTERVAL_SECONDS)
                last = self._closing
                asked = self._asked
                rows = list(self._waiting)
                self._waiting.clear()
            rows = [*self._before_write(), *rows]
            written = self._write(rows)
            with self._changed:
                if not written:
                    self._waiting.extendleft(reversed(rows))
                self._answered = asked
                self._changed.notify_all()

    def _is_due(self) -> bool:
        return self._closing or self._asked > self._answered or len(self._waiting) >= _EARLY_WRITE_ROWS

    def _write(self, rows: list[Row]) -> bool:
        """Whether `rows` are written, or can never be."""
        if not rows:
            return True
        with self._connection_lock:
            try:
                self._restart_if_deleted()
                try:
                    self._write_transaction(rows)
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                    self._restart_beside_the_damaged(error)
                    self._write_transaction(rows)
            except (sqlite3.Error, UserError, OSError) as error:
                self._complain(str(error), f"records cannot be written to {self._path} and wait: {error}")
                return False
        self._complained.clear()
        return True

    def _write_transaction(self, rows: list[Row]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, parameters in rows:
                try:
                    self._connection.execute(statement, parameters)
                except (OverflowError, ValueError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:
                    # One value that SQLite cannot hold must not keep all the others waiting.
                    self._complain("value", f"a record cannot be stored and is left out: {error}: {parameters!r}")
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _restart_if_deleted(self) -> None:
        if not self._path.exists():
            logger.warning("the run database %s was deleted; a fresh one is begun", plain(self._path))
            self._connection.close()
            self._restart()

    def _restart_beside_the_damaged(self, error: sqlite3.Error) -> None:
        self._connection.close()
        # Always, even if a new look should find nothing wrong: what SQLite has called damaged may fail again.
        set_aside(self._path, str(error))
        self._restart()

    def _restart(self) -> None:
        self._connection = open_for_writing(self._path)
        self._write_transaction(self._after_restart())

    def _complain(self, about: str, message: str) -> None:
        """Log once, until writing works again: not every second."""
        if about not in self._complained:
            self._complained.add(about)
            logger.warning("%s", plain(message))
