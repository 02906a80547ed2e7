"""A shared database is used as it is when it is ours and sound, and never in the way when it is not."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.errors import CriticalError
from wan_fixes.store import database
from wan_fixes.store.database import Database

SCHEMA = (
    "CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID; CREATE INDEX by_size ON things (size)"
)


def make(path: Path, **options: Any) -> Database:
    return Database(path, SCHEMA, **{"version": 1, **options})


def add(things: Database, name: str) -> None:
    things.write(lambda connection: connection.execute("INSERT INTO things VALUES (?, 1)", (name,)))


def names(things: Database) -> list[str]:
    return [name for (name,) in things.read(lambda c: c.execute("SELECT name FROM things ORDER BY name").fetchall())]


def set_aside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob(f"{path.name}.set-aside-*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "things.sqlite"


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    things = make(path)
    add(things, "a")
    things.close()
    assert names(make(path)) == ["a"]
    assert set_aside(path) == []


def test_a_failed_write_changes_nothing(path: Path) -> None:
    things = make(path)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES ('a', 1)")
        raise KeyError("half-way")

    with pytest.raises(KeyError):
        things.write(work)
    assert names(things) == []
    add(things, "b")
    assert names(things) == ["b"]


def test_new_tables_are_filled_in_the_transaction_that_makes_them(path: Path) -> None:
    def fill() -> list[tuple[str, list[tuple[Any, ...]]]]:
        return [("INSERT INTO things VALUES (?, ?)", [("a", 1), ("b", 2)])]

    things = make(path, fill=fill)
    assert names(things) == ["a", "b"]
    add(things, "c")
    things.close()
    things = make(path, fill=fill)
    assert names(things) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["CREATE TABLE photos (name TEXT)"], "another program"),
        ([f"PRAGMA application_id = {database.APPLICATION_ID}", "PRAGMA user_version = 2", SCHEMA], "format version 2"),
        (
            [
                f"PRAGMA application_id = {database.APPLICATION_ID}",
                "PRAGMA user_version = 1",
                "CREATE TABLE things (x)",
            ],
            "not ours",
        ),
    ],
)
def test_a_foreign_database_is_kept_named_and_replaced(
    path: Path, statements: list[str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(";".join(statements))
    content = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        things = make(path)
    add(things, "a")
    [kept] = set_aside(path)
    assert (path.parent / kept).read_bytes() == content
    [notice] = things.notices
    assert notice.path == str(path) and reason in notice.reason and kept in notice.fix
    assert str(notice) in caplog.text


def test_a_journal_without_its_database_is_not_taken_for_the_new_ones(path: Path) -> None:
    things = make(path)
    for number in range(50):
        add(things, f"{number}")
    journal = path.with_name(path.name + "-wal")
    content = journal.read_bytes()
    things.close()
    path.unlink()
    journal.write_bytes(content)
    assert names(make(path)) == []


def test_a_database_that_vanishes_while_open_stops_neither_its_user_nor_the_next(path: Path) -> None:
    things = make(path)
    add(things, "a")
    try:
        path.unlink()
    except PermissionError:
        pytest.skip("an open file cannot be removed here")
    add(things, "b")
    other = make(path)
    add(other, "c")
    assert "c" in names(other) and "a" not in names(other)


def test_a_lock_that_is_never_released_ends_in_an_error_that_names_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    things = make(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CriticalError) as caught:
            add(things, "a")
    assert caught.value.path == str(path) and "locked" in caught.value.reason and "close it" in caught.value.fix
    add(things, "a")
    assert names(things) == ["a"]


def test_an_opening_that_never_ends_elsewhere_ends_here_in_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    monkeypatch.setattr(database, "OPEN_SECONDS", 0.05)
    path.parent.mkdir()
    with (
        filelock.FileLock(f"{path}.lock", is_singleton=False),
        pytest.raises(CriticalError, match="another process has been opening it"),
    ):
        make(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(CriticalError) as caught:
        make(path)
    assert str(path) in str(caught.value) and "writable" in caught.value.fix


def test_on_a_network_file_system_no_shared_memory_is_used_and_it_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "network_file_system", lambda _: "nfs4")
    with caplog.at_level(logging.WARNING):
        things = make(path)
    add(things, "a")
    assert things.read(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("delete",)
    assert not path.with_name(path.name + "-shm").exists()
    assert "nfs4" in caplog.text and str(path) in caplog.text


def test_on_a_local_file_system_readers_do_not_wait_for_writers(path: Path) -> None:
    things = make(path)
    add(things, "a")
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert names(things) == ["a"]


def test_threads_and_processes_write_at_once(path: Path) -> None:
    things = make(path)
    program = (
        "import sys; from pathlib import Path; from wan_fixes.store.database import Database\n"
        "things = Database(Path(sys.argv[1]), sys.argv[2], version=1)\n"
        "for n in range(50):\n"
        "    things.write(lambda c: c.execute('INSERT INTO things VALUES (?, 1)', (f'{sys.argv[3]} {n}',)))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(path), SCHEMA, name]) for name in "ab"]
    threads = [
        threading.Thread(target=lambda letter=letter: [add(things, f"{letter} {n}") for n in range(50)])
        for letter in "cd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait() for child in children] == [0, 0]
    assert names(things) == sorted(f"{letter} {n}" for letter in "abcd" for n in range(50))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_its_own_connection(path: Path) -> None:
    things = make(path)
    add(things, "parent")
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            add(things, "child")
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    add(things, "parent again")
    assert names(things) == ["child", "parent", "parent again"]
