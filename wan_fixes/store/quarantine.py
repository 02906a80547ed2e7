"""The list of files that were found bad. A list: the files stay where they are."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from wan_fixes.store.database import SQLITE_ERRORS, Database

_SCHEMA = """
CREATE TABLE files (
    path BLOB NOT NULL, content TEXT NOT NULL, reason TEXT NOT NULL, fix TEXT NOT NULL, module TEXT NOT NULL,
    added REAL NOT NULL, PRIMARY KEY (path, content)
) WITHOUT ROWID;
CREATE INDEX files_by_content ON files (content)
"""

_KNOWN_SECONDS = 1.0  # so long the list is not read again: it is asked for every sample

_GLANCE_SECONDS = 0.2  # who only looks waits no longer for somebody who writes

_UNREADABLE = ""  # stands for the content of a file that could not even be hashed


@dataclass(frozen=True)
class QuarantineEntry:
    """One file on the list.

    `content` is its content id (None when it could not be read), `fix` what helps ("" when that is not known), `added`
    the time in seconds since the epoch.
    """

    path: str
    content: str | None
    reason: str
    module: str
    added: float
    fix: str = ""


class Quarantine:
    """Files that were found bad, by path and content id, in one SQLite file.

    A file whose content has changed is no longer on the list: the user has mended it. A copy or a renamed file has the
    same content, so what was said of the one holds for the other. Safe in several threads and processes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(Path(path), _SCHEMA, version=2)
        self._lock = threading.Lock()
        self._known: dict[tuple[bytes, str], tuple[str, str]] = {}
        self._known_until = -math.inf

    def add(
        self, path: str | os.PathLike[str], content: str | None, reason: str, module: str = "", *, fix: str = ""
    ) -> None:
        """Put a file on the list; `content` is its content id, None when it cannot be read."""
        row = (_encode(path), content or _UNREADABLE, _text(reason), _text(fix), _text(module), time.time())
        self._database.write(
            lambda connection: connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
        )
        self._known_until = -math.inf

    def reason_for(self, path: str | os.PathLike[str], content: str | None) -> str | None:
        """Why the file with this content is on the list; None when it is not.

        What another process adds is noticed within a second.
        """
        found = self.reason_and_fix_for(path, content)
        return None if found is None else found[0]

    def reason_and_fix_for(self, path: str | os.PathLike[str], content: str | None) -> tuple[str, str] | None:
        """As `reason_for`, and what was said to help."""
        with self._lock:
            return self._current().get((b"", content) if content else (_encode(path), _UNREADABLE))

    def digest(self) -> str:
        """A hash of which files are on the list: it changes when one is added or forgotten."""
        with self._lock:
            return xxhash.xxh3_128_hexdigest(repr(sorted(self._current())).encode())

    def _current(self) -> dict[tuple[bytes, str], tuple[str, str]]:
        if time.monotonic() > self._known_until:
            rows = self._database.read(
                lambda connection: connection.execute(
                    "SELECT path, content, reason, fix FROM files ORDER BY added"
                ).fetchall()
            )
            self._known = {(b"" if found else name, found): (reason, fix) for name, found, reason, fix in rows}
            self._known_until = time.monotonic() + _KNOWN_SECONDS
        return self._known

    def entries(self) -> list[QuarantineEntry]:
        """The whole list, oldest first."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT path, content, reason, module, added, fix FROM files ORDER BY added, path"
            ).fetchall()
        )
        return [
            QuarantineEntry(os.fsdecode(path), content or None, reason, module, added, fix)
            for path, content, reason, module, added, fix in rows
        ]

    def forget(self, path: str | os.PathLike[str]) -> bool:
        """Take a file, and every other name of the same content, off the list; False when it was not on it."""
        name = _encode(path)

        def work(connection: sqlite3.Connection) -> bool:
            contents = connection.execute("SELECT content FROM files WHERE path = ?", (name,)).fetchall()
            connection.execute("DELETE FROM files WHERE path = ?", (name,))
            known = [content for content in contents if content != (_UNREADABLE,)]
            connection.executemany("DELETE FROM files WHERE content = ?", known)
            return bool(contents)

        was_listed = self._database.write(work)
        self._known_until = -math.inf
        return was_listed

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        self._database.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Quarantine, (self._database.path,)


def count_quarantined(path: Path) -> int:
    """How many files are on the list that lies at `path`; 0 where there is none, or where it cannot be read.

    Nothing is made, mended or changed, unlike by a `Quarantine`.
    """
    try:
        with _reading(path) as connection:
            (count,) = connection.execute("SELECT COUNT(DISTINCT path) FROM files").fetchone()
            return int(count)
    except (*SQLITE_ERRORS, OSError):
        return 0


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection by which no file comes into being: neither the database nor its log, nor the log's index."""
    log, index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    with contextlib.ExitStack() as stack:
        option = "mode=ro"
        if not index.exists():  # nobody has it open, and SQLite would make log and index anew
            option = "mode=ro&immutable=1"
            if log.exists() and log.stat().st_size:  # what a killed process wrote is in there
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wan-quarantine-")))
                shutil.copyfile(log, folder / log.name)
                path, option = Path(shutil.copyfile(path, folder / path.name)), "mode=rw"
        address = f"{path.absolute().as_uri()}?{option}"
        connection = sqlite3.connect(address, uri=True, timeout=_GLANCE_SECONDS, isolation_level=None)
        yield stack.enter_context(contextlib.closing(connection))


def _encode(path: str | os.PathLike[str]) -> bytes:
    """The absolute path as bytes, since a file name need not be valid text."""
    return os.fsencode(Path(path).absolute())


def _text(message: str) -> str:
    """A message that SQLite can hold: file names in it may carry undecodable bytes."""
    return message.encode("utf-8", "backslashreplace").decode("utf-8")
