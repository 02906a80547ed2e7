"""A small SQLite file that threads and processes share, and that is set aside and made anew when it is damaged.

What lies in such a file can be derived again (from the entries, from the clips): losing it costs time, never data.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import filelock

from wan_fixes.errors import CriticalError, EntryError
from wan_fixes.filesystem import network_file_system
from wan_fixes.store.atomic import DISK_FULL

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Fill = Callable[[], list[tuple[str, list[tuple[Any, ...]]]]]

BUSY_SECONDS = 30.0
OPEN_SECONDS = 600.0  # another process may be rebuilding a large index just now
APPLICATION_ID = 0x57414E46  # "WANF"

# A message about a damaged file may quote bytes that are no text.
SQLITE_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)

_FIX_BY_MESSAGE = {
    "locked": "another program has kept it locked; close it and start again",
    "full": "free some space on that disk; nothing that was cached is lost",
    "disk I/O error": "check that the disk is sound and not full; nothing that was cached is lost",
    "readonly": "make the file and its folder writable, or choose another cache folder",
}


class Database:
    """One connection per process, shared by its threads under a lock.

    Parameters
    ----------
    path:
        The file; its folder is made.
    schema:
        `CREATE` statements. A file whose tables differ is foreign and set aside.
    version:
        Written to `user_version`. A file of another version is set aside too.
    fill:
        Gives the statements, with their rows, that fill new tables. They run in the transaction that creates the
        tables, so a kill leaves either an unmade or a filled database.
    """

    def __init__(self, path: Path, schema: str, *, version: int, fill: Fill | None = None) -> None:
        self.path = Path(path)
        self.notices: list[EntryError] = []
        self._schema = schema
        self._version = version
        self._fill = fill
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._inherited: list[sqlite3.Connection] = []
        with self._lock:
            self._live()

    def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work(connection)`; it may run twice, when the database turns out to be damaged."""
        return self._run(work)

    def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work(connection)` in one transaction, all or nothing; it may run twice, as in `read`."""

        def transaction(connection: sqlite3.Connection) -> Result:
            with _transaction(connection):
                return work(connection)

        return self._run(transaction)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        with self._lock:
            try:
                return work(self._live())
            except SQLITE_ERRORS as error:
                if _says(error, "locked", "full"):
                    raise self._unusable(error) from error
                logger.warning("%s: %s; looking at it again", self.path, error)
            self.close()
            try:
                return work(self._live())
            except SQLITE_ERRORS as error:
                raise self._unusable(error) from error

    def _live(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            # A forked child must neither use nor close its parent's connection (sqlite.org/howtocorrupt.html, 2.6).
            if self._connection is not None:
                self._inherited.append(self._connection)
            self._connection, self._pid = None, os.getpid()
        if self._connection is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self._opening():
                    self._connection = self._open()
            except (*SQLITE_ERRORS, OSError) as error:
                raise self._unusable(error) from error
        return self._connection

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """Only one process at a time judges, sets aside and creates."""
        lock = filelock.FileLock(f"{self.path}.lock", timeout=OPEN_SECONDS)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise CriticalError(
                "database cannot be opened",
                path=self.path,
                reason=f"another process has been opening it for {OPEN_SECONDS:.0f} s",
                fix="end that process and start again",
            ) from error
        except NotImplementedError as error:  # the file system has no locks; the transactions below still hold
            logger.warning("%s: no file locks here (%s)", self.path, error)
        try:
            yield
        finally:
            lock.release()

    def _open(self) -> sqlite3.Connection:
        reason = self._damage()
        if reason is not None:
            self._set_aside(reason)
        connection = self._connect()
        try:
            self._choose_journal(connection)
            if not _tables(connection):
                # gathered before the transaction: others may wait for the database only so long
                filling = self._fill() if self._fill is not None else []
                with _transaction(connection):
                    for statement in self._schema.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {self._version}")
                    for statement, rows in filling:
                        connection.executemany(statement, rows)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        # A damaged text must reach our own check as text, not end as an error inside sqlite3.
        connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        return connection

    def _choose_journal(self, connection: sqlite3.Connection) -> None:
        kind = network_file_system(self.path)
        if kind is None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            return
        # WAL needs memory that all readers share: not there across machines (sqlite.org/wal.html).
        logger.warning(
            "%s lies on a network file system (%s): slower journal; use it from one machine at a time",
            self.path,
            kind,
        )
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")

    def _damage(self) -> str | None:
        """Why the file cannot be used; None when it can, or when there is none."""
        if not self.path.exists():
            # A journal without its database would be taken for the new one's.
            return "the file is gone and its journal is not" if self._parts() else None
        if not all(part.is_file() for part in self._parts()):
            return "it, or its journal, is not a file"
        try:
            with contextlib.closing(self._connect()) as connection:
                return self._judge(connection)
        except SQLITE_ERRORS as error:
            # not damage, and a new file would fare no better; "readonly" may be damage to the header
            if _says(error, "locked", "full", "disk I/O"):
                raise
            return str(error)

    def _judge(self, connection: sqlite3.Connection) -> str | None:
        with _transaction(connection):  # a damaged header can make a file read-only
            found = _tables(connection)
        if not found:
            return None
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            return "it belongs to another program"
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != self._version:
            return f"it has format version {version}, and this program uses version {self._version}"
        with contextlib.closing(sqlite3.connect(":memory:")) as model:
            model.executescript(self._schema)
            if found != _tables(model):
                return "its tables are not ours"
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        return None if verdict == "ok" else str(verdict).replace("\n", " ")

    def _parts(self) -> list[Path]:
        names = [self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm", "-journal"))]
        return [name for name in names if name.exists()]

    def _set_aside(self, reason: str) -> None:
        mark = f".set-aside-{time.time_ns()}"
        for part in self._parts():
            part.replace(part.with_name(part.name + mark))
        notice = EntryError(
            "database cannot be used",
            path=self.path,
            reason=reason,
            fix=f"it was kept as {self.path.name}{mark} and is made anew; delete that file when you do not need it",
        )
        self.notices.append(notice)
        logger.warning("%s", notice)

    def _unusable(self, error: Exception) -> CriticalError:
        fixes = [fix for word, fix in _FIX_BY_MESSAGE.items() if word in str(error)]
        return CriticalError(
            "database cannot be used",
            path=self.path,
            reason=str(error),
            fix=fixes[0] if fixes else "make the folder writable, or choose another cache folder",
            context={DISK_FULL: 1} if "full" in str(error) else None,
        )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def _says(error: Exception, *words: str) -> bool:
    return any(word in str(error) for word in words)
