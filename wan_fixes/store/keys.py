"""What an entry is called: the identity of a file's content, and the hash of everything that shaped a sample."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from wan_fixes.errors import SampleError
from wan_fixes.store.database import Database

CHUNK_BYTES = 1 << 20
# The coarsest time stamp in use (FAT). A file that changed more recently can change again within the same stamp.
STAMP_SECONDS = 2.0

_SCHEMA = """
CREATE TABLE contents (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, file_id TEXT NOT NULL,
    content TEXT NOT NULL
) WITHOUT ROWID
"""


def content_id(path: str | os.PathLike[str]) -> str:
    """Hash of a file's bytes: xxh3_128, 32 hex digits. The name and the time play no part.

    Raises SampleError when the file cannot be read, is no regular file, or changes while it is read.
    """
    return _hash(Path(path))[0]


class ContentIds:
    """Remembers content ids, so that a file is hashed again only when it may have changed.

    A file counts as unchanged while its absolute path, size, time of change (ns) and file id (inode) are the same.
    Safe in several threads and processes. The database may be deleted at any time.
    """

    def __init__(self, database_path: str | os.PathLike[str]) -> None:
        self._database = Database(Path(database_path), _SCHEMA, version=1)
        self._lock = threading.Lock()
        # By path; read as a whole when first asked, which for 100,000 files takes half a second and 50 MB.
        self._known: dict[bytes, tuple[tuple[int, int, str], str]] | None = None

    def of(self, path: str | os.PathLike[str]) -> str:
        """The content id of a file; raises SampleError as `content_id` does."""
        absolute = os.fspath(path if os.path.isabs(path) else Path(path).absolute())  # noqa: PTH117 - as in `_state`
        name = os.fsencode(absolute)
        state = _state(absolute)
        with self._lock:
            if self._known is None:
                self._known = self._database.read(_all_known)
            stamp, content = self._known.get(name, (None, ""))
        if stamp == _stamp(state):
            return content
        content, state = _hash(Path(absolute))
        if time.time() - state.st_mtime > STAMP_SECONDS:
            self._database.write(lambda connection: _remember(connection, name, state, content))
            with self._lock:
                self._known[name] = (_stamp(state), content)
        return content

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        self._database.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return ContentIds, (self._database.path,)


def make_key(parts: Mapping[str, Any]) -> str:
    """Hash of what made a sample: 32 hex digits (BLAKE2b) of canonical JSON.

    The order of a dict's keys plays no part. Lists and tuples count as equal, since a tuple that went through a JSON
    file comes back as a list and must not make a new key. `1`, `1.0`, `True` and `"1"` are four different values.

    Raises TypeError, naming the part, for anything but None, bool, int, float, str, lists, tuples and dicts with text
    keys.
    """
    text = _ENCODER.encode(_canonical(parts, "key"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()


# Made once: json.dumps makes one for each call that is not by default, and a start makes a key for every sample.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _canonical(value: Any, where: str) -> Any:
    # Exact types: how a subclass (an enumeration, a numpy number) is written may differ between versions.
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        return [_canonical(part, f"{where}[{number}]") for number, part in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if type(name) is not str:
                raise TypeError(f"{where} has a key of type {type(name).__name__}: only text can be a key")
        return {name: _canonical(part, f"{where}[{name!r}]") for name, part in value.items()}
    raise TypeError(f"{where} is of type {type(value).__name__}, which has no canonical JSON")


def _all_known(connection: sqlite3.Connection) -> dict[bytes, tuple[tuple[int, int, str], str]]:
    rows = connection.execute("SELECT path, size, mtime_ns, file_id, content FROM contents").fetchall()
    return {name: (tuple(stamp), content) for name, *stamp, content in rows if len(content) == 32}


def _remember(connection: sqlite3.Connection, name: bytes, state: os.stat_result, content: str) -> None:
    connection.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?)", (name, *_stamp(state), content))


def _stamp(state: os.stat_result) -> tuple[int, int, str]:
    # The file id as text: ReFS has 128-bit ones, and SQLite's integers end at 64 bits.
    return state.st_size, state.st_mtime_ns, str(state.st_ino)


def _state(path: str | Path) -> os.stat_result:
    try:
        state = os.stat(path)  # noqa: PTH116 - asked for every sample, and a Path takes longer to make than this
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
        raise _unreadable(path, "it is not a regular file")
    return state


def _hash(path: Path) -> tuple[str, os.stat_result]:
    before = _state(path)
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if _stamp(before) != _stamp(_state(path)):
        raise _unreadable(path, "it changed while it was read")
    return digest.hexdigest(), before


def _unreadable(path: str | Path, reason: str) -> SampleError:
    return SampleError(
        "file cannot be read",
        path=path,
        reason=reason,
        fix="check that the file is there, is complete and may be read",
        module="store",
    )
