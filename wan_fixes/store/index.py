"""The index: one row per entry, so that a complete cache opens without touching its files.

The files are the truth and the index is a copy of their headers. A row carries a checksum of itself, since SQLite
checks the structure of its pages and not what is in them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from wan_fixes.store.database import Database

INDEX_VERSION = 3
KEYS_PER_QUERY = 500  # older SQLite takes at most 999 parameters

_SCHEMA = """
CREATE TABLE entries (
    key TEXT PRIMARY KEY, file TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, checksum TEXT NOT NULL,
    values_json TEXT NOT NULL, created REAL NOT NULL, row_checksum TEXT NOT NULL, last_used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE discarded (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, file TEXT NOT NULL, reason TEXT NOT NULL, time REAL NOT NULL
);
CREATE TABLE needed (
    owner TEXT NOT NULL, key TEXT NOT NULL, concept TEXT NOT NULL, PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE TABLE owners (owner TEXT PRIMARY KEY, needs TEXT NOT NULL, last_used REAL NOT NULL) WITHOUT ROWID
"""


_INSERT = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_DISCARDED = "INSERT INTO discarded (key, file, reason, time) VALUES (?, ?, ?, ?)"
_UPDATE_USED = "UPDATE entries SET last_used = max(last_used, ?) WHERE key = ?"
_INSERT_NEEDED = "INSERT OR REPLACE INTO needed VALUES (?, ?, ?)"


@dataclass(frozen=True)
class Row:
    """One entry: its file relative to the folder of entries, size in bytes, mtime (ns), checksum, values, birth (s)."""

    key: str
    file: str
    size: int
    mtime_ns: int
    checksum: str
    values_json: str
    created: float

    def row_checksum(self) -> str:
        """Checksum of this row, kept beside it."""
        fields = (self.key, self.file, self.size, self.mtime_ns, self.checksum, self.values_json, self.created)
        return xxhash.xxh3_64_hexdigest(repr(fields).encode("ascii", "backslashreplace"))


@dataclass(frozen=True)
class Usage:
    """What is known of the use of an entry: bytes of its file, when it was last used (s), whether somebody needs it."""

    key: str
    size: int
    last_used: float
    needed: bool


@dataclass(frozen=True)
class Discarded:
    """A file that was taken out of the cache: its name in the quarantine folder ("" if there was none), why, when."""

    key: str
    file: str
    reason: str
    time: float


class Index:
    """Rows by key in one SQLite file.

    `entries_on_disk` and `discarded_on_disk` are read when the index must be made from the files.
    """

    def __init__(
        self,
        path: Path,
        entries_on_disk: Callable[[], Iterable[Row]],
        discarded_on_disk: Callable[[], Iterable[Discarded]],
    ) -> None:
        self._entries_on_disk = entries_on_disk
        self._discarded_on_disk = discarded_on_disk
        self.database = Database(path, _SCHEMA, version=INDEX_VERSION, fill=self._fill)

    def find(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows of those keys that have a sound one."""
        wanted = list(keys)
        found: dict[str, Row] = {}
        for start in range(0, len(wanted), KEYS_PER_QUERY):
            rows = self.database.read(partial(_select, keys=wanted[start : start + KEYS_PER_QUERY]))
            found.update((row.key, row) for row in rows)
        return found

    def keys(self) -> list[str]:
        """All keys, sorted."""
        rows = self.database.read(lambda c: c.execute("SELECT key FROM entries ORDER BY key").fetchall())
        return [key for (key,) in rows if type(key) is str]

    def put(self, row: Row, still_true: Callable[[], bool]) -> None:
        """Insert or replace a row, unless `still_true()`, asked inside the transaction, says otherwise."""

        def work(connection: sqlite3.Connection) -> None:
            if still_true():
                connection.execute(_INSERT, _stored(row))

        self.database.write(work)

    def remove(self, key: str) -> None:
        """Drop a row whose file is gone."""
        self.database.write(lambda c: c.execute("DELETE FROM entries WHERE key = ?", (key,)))

    def remove_where(self, keys: Iterable[str], is_gone: Callable[[str], bool]) -> None:
        """Drop the rows of those keys whose file `is_gone`, asked inside the transaction."""

        def work(connection: sqlite3.Connection) -> None:
            gone = [(key,) for key in keys if is_gone(key)]
            connection.executemany("DELETE FROM entries WHERE key = ?", gone)

        self.database.write(work)

    def knows_needs(self) -> bool:
        """Whether any owner noted what it needs."""
        return bool(self.database.read(lambda c: c.execute("SELECT EXISTS (SELECT 1 FROM needed)").fetchone()[0]))

    def discard(self, discarded: Discarded) -> None:
        """Drop a row and remember why its file was taken out."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM entries WHERE key = ?", (discarded.key,))
            connection.execute(_INSERT_DISCARDED, astuple(discarded))

        self.database.write(work)

    def touch(self, used: dict[str, float]) -> None:
        """Remember when entries were last used (seconds since the epoch)."""
        pairs = [(moment, key) for key, moment in used.items()]
        self.database.write(lambda c: c.executemany("UPDATE entries SET last_used = ? WHERE key = ?", pairs))

    def note_needed(self, owner: str, concepts: Mapping[str, str], moment: float, *, replace: bool) -> None:
        """Remember that `owner` needs these keys, each for a concept. All that it needs counts as used at `moment`.

        With `replace`, nothing else is needed by it any more. Only what differs is written.
        """
        needs = xxhash.xxh3_128_hexdigest("\n".join(f"{key} {name}" for key, name in concepts.items()).encode())

        def work(connection: sqlite3.Connection) -> None:
            then, used = connection.execute(
                "SELECT needs, last_used FROM owners WHERE owner = ?", (owner,)
            ).fetchone() or ("", 0.0)
            if not replace or then != needs:
                known = dict(connection.execute("SELECT key, concept FROM needed WHERE owner = ?", (owner,)))
                new = [(owner, key, concept) for key, concept in concepts.items() if known.get(key) != concept]
                old = sorted(known.keys() - concepts.keys()) if replace else []
                # sorted as the tables are: pages are then written once
                connection.executemany(_UPDATE_USED, [(used, key) for key in old])
                connection.executemany("DELETE FROM needed WHERE owner = ? AND key = ?", [(owner, key) for key in old])
                connection.executemany(_INSERT_NEEDED, sorted(new))
            row = (owner, needs if replace else "", moment)
            connection.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?)", row)

        self.database.write(work)

    def usage(self, keys: Sequence[str] | None = None) -> list[Usage]:
        """All entries, or those of at most `KEYS_PER_QUERY` keys; the least recently used first.

        What an owner needs counts as used when the owner was.
        """
        chosen = "" if keys is None else f"AND key IN ({','.join('?' * len(keys))}) "
        rows = self.database.read(
            lambda c: c.execute(
                "WITH owned AS (SELECT key, max(last_used) AS used FROM needed JOIN owners USING (owner) GROUP BY key) "
                "SELECT key, size, max(last_used, coalesce(used, 0.0)) AS latest, used IS NOT NULL "
                "FROM entries LEFT JOIN owned USING (key) "
                "WHERE typeof(key) = 'text' AND typeof(size) = 'integer' AND typeof(last_used) = 'real' "
                f"{chosen}ORDER BY latest, key",
                keys or (),
            ).fetchall()
        )
        return [Usage(key, size, last_used, bool(needed)) for key, size, last_used, needed in rows]

    def concepts(self) -> list[tuple[str, int, int]]:
        """For each concept that needs any: its name, its entries that are there, and their bytes."""
        return self.database.read(
            lambda c: c.execute(
                "SELECT concept, count(*), CAST(total(size) AS INTEGER) "
                "FROM (SELECT DISTINCT concept, key FROM needed) JOIN entries USING (key) "
                "WHERE typeof(size) = 'integer' GROUP BY concept ORDER BY concept"
            ).fetchall()
        )

    def totals(self) -> tuple[int, int, int]:
        """Entries, their bytes, and how many files were ever discarded."""

        def work(connection: sqlite3.Connection) -> tuple[int, int, int]:
            entries, size = connection.execute(
                "SELECT count(*), total(size) FROM entries WHERE typeof(size) = 'integer'"
            ).fetchone()
            (discarded,) = connection.execute("SELECT count(*) FROM discarded").fetchone()
            return entries, int(size), discarded

        return self.database.read(work)

    def remake(self) -> None:
        """Forget all rows and make them anew from the files; when an entry was last used is kept."""
        rows = list(self._entries_on_disk())

        def work(connection: sqlite3.Connection) -> None:
            used = dict(connection.execute("SELECT key, last_used FROM entries WHERE typeof(last_used) = 'real'"))
            connection.execute("DELETE FROM entries")
            connection.executemany(_INSERT, [_stored(row, used.get(row.key)) for row in rows])

        self.database.write(work)

    def _fill(self) -> list[tuple[str, list[tuple[Any, ...]]]]:
        return [
            (_INSERT, [_stored(row) for row in self._entries_on_disk()]),
            (_INSERT_DISCARDED, [astuple(discarded) for discarded in self._discarded_on_disk()]),
        ]


def _select(connection: sqlite3.Connection, keys: list[str]) -> list[Row]:
    marks = ",".join("?" * len(keys))
    rows = connection.execute(
        "SELECT key, file, size, mtime_ns, checksum, values_json, created, row_checksum "
        f"FROM entries WHERE key IN ({marks})",
        keys,
    ).fetchall()
    pairs = [(Row(*fields), row_checksum) for *fields, row_checksum in rows]
    return [row for row, row_checksum in pairs if row.row_checksum() == row_checksum]


def _stored(row: Row, last_used: float | None = None) -> tuple[Any, ...]:
    return *astuple(row), row.row_checksum(), time.time() if last_used is None else last_used
