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
from wan_fixes.health.run_schema import DatabaseFailure, is_damage, open_for_writing, set_aside
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
        Called with the connection when the database had to be opened anew, and may be another; returns the rows that it
        must hold, or None where nothing that waits belongs into it.
    """

    def __init__(
        self,
        path: Path,
        before_write: Callable[[], list[Row]],
        after_restart: Callable[[sqlite3.Connection], list[Row] | None],
    ) -> None:
        self._path = path
        self._before_write = before_write
        self._after_restart = after_restart
        self._connection: sqlite3.Connection | None = open_for_writing(path)
        self._file = _file_at(path)
        self._connection_lock = threading.Lock()
        self._waiting: deque[Row] = deque()
        self._changed = threading.Condition()
        self._asked = self._answered = 0  # numbers of flushes
        self._closing = self._failed = False
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
            try:
                row_id = self._usable().execute(statement, parameters).lastrowid
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._set_aside(error)
                row_id = self._usable().execute(statement, parameters).lastrowid
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
            self._disconnect()

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
                self._failed = not written
                if not written:
                    self._waiting.extendleft(reversed(rows))
                self._answered = asked
                self._changed.notify_all()

    def _is_due(self) -> bool:
        # What could not be written a moment ago is tried again only after the interval, however much it is.
        has_many = len(self._waiting) >= _EARLY_WRITE_ROWS and not self._failed
        return self._closing or self._asked > self._answered or has_many

    def _write(self, rows: list[Row]) -> bool:
        """Whether `rows` are written, or can never be."""
        if not rows:
            return True
        with self._connection_lock:
            try:
                try:
                    self._write_transaction(self._usable(), rows)
                except DatabaseFailure as error:
                    if not is_damage(error):
                        raise
                    self._set_aside(error)
                    self._write_transaction(self._usable(), rows)
            except _NotOurs:
                return True
            except (*DatabaseFailure, UserError, OSError) as error:
                self._complain(str(error), f"records cannot be written to {self._path} and wait: {error}")
                return False
        self._complained.clear()
        return True

    def _write_transaction(self, connection: sqlite3.Connection, rows: list[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, parameters in rows:
                try:
                    connection.execute(statement, parameters)
                except UnicodeDecodeError:
                    raise
                except (OverflowError, ValueError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:
                    # One value that SQLite cannot hold must not keep all the others waiting.
                    self._complain("value", f"a record cannot be stored and is left out: {error}: {parameters!r}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _usable(self) -> sqlite3.Connection:
        """The connection, opened anew where the file is gone or is another one by now, or could not be opened before.

        Raises `_NotOurs` where nothing that waits belongs into what is there.
        """
        if self._connection is not None and _file_at(self._path) != self._file:
            self._disconnect()
        if self._connection is None:
            connection = open_for_writing(self._path)
            try:
                rows = self._after_restart(connection)
                self._write_transaction(connection, rows or [])
            except BaseException:
                connection.close()
                raise
            self._connection, self._file = connection, _file_at(self._path)
            logger.warning("the run database %s was deleted, replaced or away; recording goes on", plain(self._path))
            if rows is None:
                raise _NotOurs
        return self._connection

    def _set_aside(self, error: Exception) -> None:
        self._disconnect()
        # Always, even if a new look should find nothing wrong: what SQLite has called damaged may fail again.
        set_aside(self._path, str(error))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _complain(self, about: str, message: str) -> None:
        """Log once, until writing works again: not every second."""
        if about not in self._complained:
            self._complained.add(about)
            logger.warning("%s", plain(message))


class _NotOurs(Exception):
    """Another process has begun the database anew, and a run of its own has the number of ours."""


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file there is, whatever its name; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
