"""The run database as a file: its tables, how it is opened for writing and reading, how a damaged one is set aside."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Final

from wan_fixes.errors import UserError
from wan_fixes.filesystem import require_local_file_system
from wan_fixes.health.text import plain

SCHEMA_VERSION: Final = 2
_APPLICATION_ID: Final = 0x57414E46  # "WANF", so that another program's database is never touched
_BUSY_SECONDS: Final = 5.0
_PAGES_WORTH_IT: Final = 64  # of 4 KiB
_WHAT: Final = "the run database"
NO_DATABASE: Final = "there is no run database"
"""What a `UserError` says where nothing has been run yet."""

# In `samples` one verdict for each path that was left out (the latest), and any number of different warnings.
# In `steps` NULL means NaN, which SQLite cannot store.
_TABLES: Final = {
    "runs": "CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, config TEXT NOT NULL, "
    "status TEXT NOT NULL, started REAL NOT NULL, finished REAL, last_seen REAL NOT NULL, "
    "pid INTEGER NOT NULL, process_started REAL NOT NULL, host TEXT NOT NULL)",
    "events": "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id INTEGER NOT NULL, time REAL NOT NULL, "
    "kind TEXT NOT NULL, message TEXT NOT NULL, facts TEXT NOT NULL)",
    "samples": "CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id INTEGER NOT NULL, "
    "path TEXT NOT NULL, "
    "warning TEXT NOT NULL, status TEXT NOT NULL, module TEXT NOT NULL, reason TEXT NOT NULL, fix TEXT NOT NULL, "
    "kind TEXT NOT NULL, time REAL NOT NULL, UNIQUE (run_id, path, warning))",
    "counters": "CREATE TABLE counters (run_id INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, "
    "PRIMARY KEY (run_id, name)) WITHOUT ROWID",
    "steps": "CREATE TABLE steps (run_id INTEGER NOT NULL, at INTEGER NOT NULL, step INTEGER NOT NULL, "
    "time REAL NOT NULL, loss REAL, lr REAL, seconds REAL, count INTEGER NOT NULL, finite INTEGER NOT NULL, "
    "PRIMARY KEY (run_id, at)) WITHOUT ROWID",
    "gauges": "CREATE TABLE gauges (run_id INTEGER NOT NULL, at INTEGER NOT NULL, time REAL NOT NULL, "
    "value TEXT NOT NULL, PRIMARY KEY (run_id, at)) WITHOUT ROWID",
    "states": "CREATE TABLE states (run_id INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, "
    "PRIMARY KEY (run_id, name)) WITHOUT ROWID",
}
_INDEX: Final = "CREATE INDEX events_of_run ON events (run_id, id)"
_INDEX_OF_SAMPLES: Final = "CREATE INDEX samples_of_run ON samples (run_id, time)"  # tells at once whether any changed
_SCHEMA: Final = (*_TABLES.values(), _INDEX, _INDEX_OF_SAMPLES)
TABLES_OF_RUNS: Final = tuple(name for name in _TABLES if name != "runs")

# Version 1 had a row for each valid sample and for each step.
_FROM_VERSION_1: Final = (
    "INSERT OR REPLACE INTO counters (run_id, name, value) "
    "SELECT run_id, 'samples_valid', COUNT(*) FROM samples WHERE status = 'valid' GROUP BY run_id",
    "INSERT OR REPLACE INTO counters (run_id, name, value) "
    "SELECT run_id, 'samples_warned', COUNT(DISTINCT path) FROM samples WHERE status = 'warning' GROUP BY run_id",
    "DELETE FROM samples WHERE status = 'valid'",
    "ALTER TABLE steps RENAME TO old_steps",
    "DROP TABLE module_times",
    *(_TABLES[name] for name in ("steps", "gauges", "states")),
    "INSERT INTO steps SELECT run_id, (step - 1) / 512, MAX(step), MAX(time), AVG(loss), MAX(lr), SUM(seconds), "
    "COUNT(*), COUNT(loss) FROM old_steps GROUP BY run_id, (step - 1) / 512",
    "DROP TABLE old_steps",
    _INDEX_OF_SAMPLES,
)

# Python 3.10 gives no error codes, so messages must do.
_DAMAGE: Final = ("not a database", "malformed", "no such table", "no such column", "unsupported file format")

# A damaged table definition makes Python fail on the text of SQLite's own message.
DatabaseFailure: Final = (sqlite3.Error, UnicodeDecodeError)

logger = logging.getLogger(__name__)


def is_damage(error: Exception) -> bool:
    """Whether the error says that the file is damaged, and not merely busy or out of space."""
    return isinstance(error, UnicodeDecodeError) or any(words in str(error) for words in _DAMAGE)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, made when missing; a damaged one is set aside and a fresh one begun.

    Raises `UserError` on a network file system, when the folder cannot be written to, or when the file is
    another program's database or of a newer version: these are left alone.
    """
    require_local_file_system(path.parent, _WHAT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        return _opened(path)
    except DatabaseFailure as error:
        if not is_damage(error):
            raise _unusable(path, error) from error
        set_aside(path, str(error))
    try:
        return _opened(path)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def open_for_reading(path: Path, *, is_local: bool = False) -> sqlite3.Connection:
    """Open the database at `path` for reading only, also in a folder that cannot be written to.

    Raises `UserError` when there is none, or it cannot be read. With `is_local` it is known that the folder is on a
    local disk: finding that out takes as long as reading a little.
    """
    if not is_local:
        require_local_file_system(path.parent, _WHAT)
    try:
        is_there = path.is_file()
    except OSError as error:
        raise _unreadable(path, error, "check the drive, and who may read the folder") from error
    if not is_there:
        raise UserError(NO_DATABASE, path=path, reason="nothing has been run there", fix="start a run first")
    if not path.with_name(path.name + "-shm").exists():
        # Nobody has it open: SQLite would make its log and the log's index anew, and reading must not write a byte.
        with contextlib.suppress(*DatabaseFailure, OSError):
            return _opened_elsewhere(path)
    try:
        return _opened_readonly(path, "mode=ro")
    except DatabaseFailure as first_error:
        # A log-keeping database cannot be opened as usual where its log's index cannot be written.
        try:
            return _opened_elsewhere(path)
        except (*DatabaseFailure, OSError):
            raise _unreadable(path, first_error) from first_error


def set_aside(path: Path, reason: str) -> Path:
    """Rename the database and its log, so that a fresh one can be begun; returns the new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = next(
        candidate
        for number in range(1000)
        if not (candidate := path.with_name(f"{path.name}.damaged-{stamp}-{number}")).exists()
    )
    try:
        for ending in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + ending).replace(target.with_name(target.name + ending))
    except OSError as error:
        raise _unusable(path, error) from error
    logger.warning(
        "the run database %s is damaged (%s); it was renamed to %s and a fresh one begun",
        plain(path),
        plain(reason),
        plain(target.name),
    )
    return target


def _opened(path: Path) -> sqlite3.Connection:
    is_fresh = not path.exists() or path.stat().st_size == 0
    connection = _connected(path)
    try:
        if is_fresh:  # of a database that is there it would change the header, whosever it is
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _refuse_foreign(connection, path, brings_up_to_date=True)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: {verdict}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(f"the file system cannot keep a write-ahead log (it keeps '{mode}')")
        # A killed process loses nothing that was committed; a power cut may lose the last moments, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == 1:
            for statement in _FROM_VERSION_1:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        definitions = _definitions(connection)
        if definitions and definitions != set(_SCHEMA):
            raise sqlite3.DatabaseError("malformed: the tables are not those of this program")
        if not definitions:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
        _give_room_back(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _give_room_back(connection: sqlite3.Connection) -> None:
    """Shorten the file by what forgotten runs took, unless another program writes right now."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free >= _PAGES_WORTH_IT:
        with contextlib.suppress(sqlite3.OperationalError):
            # As a script, since `execute` asks for one row, and a page is given back with each.
            connection.executescript(f"PRAGMA incremental_vacuum({free})")


def _connected(name: str | Path, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(name, uri=uri, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # SQLite does not notice a flipped byte within a text; the rest of it is still worth reading.
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def _definitions(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {sql for (sql,) in rows}


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _refuse_foreign(connection: sqlite3.Connection, path: Path, *, brings_up_to_date: bool = False) -> None:
    if not _definitions(connection):
        return
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version(connection)
    if application != _APPLICATION_ID:
        raise UserError(
            f"{_WHAT} cannot be opened",
            path=path,
            reason="it is another program's database",
            fix="move it away, or choose another workspace folder",
        )
    if version == SCHEMA_VERSION or (version == 1 and brings_up_to_date):
        return
    is_old = version < SCHEMA_VERSION
    raise UserError(
        f"{_WHAT} cannot be opened",
        path=path,
        reason=f"it has format version {version}, and this version of the plugin knows {SCHEMA_VERSION}",
        fix="start a run: it is brought up to date" if is_old else "update the plugin, or move the file away",
    )


def _opened_readonly(path: Path, option: str) -> sqlite3.Connection:
    connection = _connected(f"{path.absolute().as_uri()}?{option}", uri=True)
    try:
        _refuse_foreign(connection, path)
        connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _opened_elsewhere(path: Path) -> sqlite3.Connection:
    """Read without touching the folder: as it stands when there is no log, else from a copy of file and log."""
    log = path.with_name(path.name + "-wal")
    if not log.exists() or log.stat().st_size == 0:
        return _opened_readonly(path, "mode=ro&immutable=1")
    with tempfile.TemporaryDirectory(prefix="wan-runs-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
        with contextlib.closing(sqlite3.connect(copy)) as source:
            connection = _connected(":memory:")
            source.backup(connection)
    _refuse_foreign(connection, path)
    connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone()
    return connection


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{_WHAT} cannot be opened",
        path=path,
        reason=str(getattr(error, "strerror", None) or error),
        fix="check that the folder exists, is writable and has space, and that no other program holds the file",
    )


def _unreadable(
    path: Path, error: Exception, fix: str = "the next run sets a damaged file aside and begins a fresh one"
) -> UserError:
    return UserError(f"{_WHAT} cannot be read", path=path, reason=str(error), fix=fix)
