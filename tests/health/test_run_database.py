"""The run database gives back what was put in, and no damage, crowd or full disk ever stops a run."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes import filesystem
from wan_fixes.errors import UserError
from wan_fixes.health import RunDatabase, run_schema
from wan_fixes.health.process import ProcessIdentity


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workspace #1 100%?" / "runs.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[RunDatabase]:
    with RunDatabase(path) as database:
        yield database


def messages(database: Any, run_id: int) -> list[str]:
    return [event.message for event in database.events(run_id)]


# What is put in comes out


def test_everything_recorded_is_read_back(path: Path) -> None:
    clock = Clock()
    with RunDatabase(path, clock) as database:
        run = database.start_run("train", {"batch_size": 2, "secrets": {"hf_token": "x"}})
        run.event("caching_started", "12 clips", clips=12)
        run.sample("a.mp4", "skipped", "Loader", "empty", "copy it again", "decode")
        run.counters({"cache_hits": 3})
        run.counters({"cache_hits": 5, "cache_misses": 1})
        run.step(1, 0.5, 1e-4, 2.0)
        run.step(2, math.nan, 1e-4, 2.0)
        run.gauges({"memory_mb": 12.5})
        run.state("breakers", {"Loader": "open"})
        run.state("breakers", {"Loader": "closed"})
        clock.now += 7
        run.finish()
    reader = RunDatabase.open_readonly(path)
    record = reader.latest_run()
    assert record is not None
    assert (record.kind, record.status, record.finished) == ("train", "finished", 1_000_007.0)
    assert record.config == {"batch_size": 2, "secrets": {"hf_token": "***"}}
    (event,) = reader.events(run.id)
    assert (event.kind, event.message, event.facts) == ("caching_started", "12 clips", {"clips": 12})
    assert reader.events(run.id, after=event.id) == []
    (sample,) = reader.samples(run.id, "skipped")
    assert (sample.path, sample.module, sample.reason, sample.fix) == ("a.mp4", "Loader", "empty", "copy it again")
    assert reader.samples(run.id, "valid") == []
    assert reader.counters_of(run.id) == {"cache_hits": 5, "cache_misses": 1}
    first, second = reader.steps(run.id)
    assert (first.step, first.loss, first.lr, first.seconds) == (1, 0.5, 1e-4, 2.0)
    assert math.isnan(second.loss)
    assert (second.step, second.count) == (2, 1)
    (measured,) = reader.gauges(run.id)
    assert (measured.time, measured.values) == (1_000_000.0, {"memory_mb": 12.5})
    assert reader.states(run.id) == {"breakers": {"Loader": "closed"}}


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(alphabet=st.characters(), max_size=50), min_size=7, max_size=7))
def test_any_text_can_be_recorded(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.sqlite"
    with RunDatabase(path) as database:
        run = database.start_run(texts[0], {texts[1]: texts[2]})
        run.sample(texts[3], "skipped", texts[4], texts[5], texts[6])
        run.event(texts[0], texts[1], fact=texts[2])
        (sample,) = database.samples(run.id)
        (event,) = database.events(run.id)
    assert sample.path == texts[3].encode("utf-8", "backslashreplace").decode()
    assert event.facts == {"fact": texts[2]}


def test_many_threads_lose_nothing(database: RunDatabase) -> None:
    run = database.start_run("train")

    def work(number: int) -> None:
        for index in range(500):
            run.event("note", f"{number}/{index}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = messages(database, run.id)
    assert len(seen) == len(set(seen)) == 4000
    for number in range(8):  # each thread's own order is kept
        own = [int(text.split("/")[1]) for text in seen if text.startswith(f"{number}/")]
        assert own == list(range(500))


def test_secrets_never_reach_the_file(path: Path) -> None:
    secret = "hf_AbCdEfGhIjKlMnOpQrStUvWx"
    with RunDatabase(path) as database, database.start_run("train", {"note": secret, "wandb_api_key": secret}) as run:
        run.event("download", f"GET with Bearer {secret}", url=f"https://host/?token={secret}")
        run.sample(f"/clips/{secret}.mp4", "skipped", reason=f"password={secret}")
    assert secret.encode() not in path.read_bytes()


def test_facts_that_are_no_json_are_kept_as_text(database: RunDatabase, tmp_path: Path) -> None:
    run = database.start_run("train")
    run.event("saved", "checkpoint", path=tmp_path, numbers=(1, 2), kind="lora")
    (event,) = database.events(run.id)
    assert event.facts == {"path": str(tmp_path), "numbers": [1, 2], "kind": "lora"}


def test_only_the_latest_runs_are_kept(database: RunDatabase) -> None:
    for number in range(60):
        database.start_run("check").sample("a.mp4", "skipped", reason=str(number))
    kept = database.runs()
    assert len(kept) == 50
    assert kept[0].id == 60
    assert database.samples(10) == []
    assert len(database.samples(11)) == 1


# How runs end


def test_leaving_the_block_tells_how_it_ended(database: RunDatabase) -> None:
    with database.start_run("train"):
        pass
    with pytest.raises(ValueError, match="no"), database.start_run("train"):
        raise ValueError("no")
    with pytest.raises(KeyboardInterrupt), database.start_run("train"):
        raise KeyboardInterrupt
    assert [run.status for run in database.runs()] == ["interrupted", "failed", "finished"]


def test_the_first_verdict_stands(database: RunDatabase) -> None:
    run = database.start_run("train")
    run.finish("interrupted")
    run.finish("finished")
    (record,) = database.runs()
    assert record.status == "interrupted"


def test_a_process_of_the_same_number_is_not_the_same_process() -> None:
    here = ProcessIdentity.current()
    assert here.is_alive() is True
    assert ProcessIdentity(here.pid, here.started - 3600, here.host).is_alive() is False
    assert ProcessIdentity(2**22 + 12345, here.started, here.host).is_alive() is False
    assert ProcessIdentity(here.pid, here.started, "another machine").is_alive() is None


def test_a_run_elsewhere_lives_as_long_as_its_heartbeat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    with RunDatabase(path, clock) as database:
        database.start_run("train")
        monkeypatch.setattr("wan_fixes.health.process.platform.node", lambda: "another machine")
        reader = RunDatabase.open_readonly(path, clock)
        assert reader.runs()[0].status == "running"
        clock.now += 30
        database.flush()
        clock.now += 40
        assert reader.runs()[0].status == "running"
        clock.now += 40
        assert reader.runs()[0].status == "interrupted"


# Damage


def set_aside(path: Path) -> list[Path]:
    return sorted(p for p in path.parent.iterdir() if ".damaged-" in p.name and not p.name.endswith(("-wal", "-shm")))


@functools.cache
def filled_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        filled(Path(folder) / "runs.sqlite")
        return (Path(folder) / "runs.sqlite").read_bytes()


def filled(path: Path) -> None:
    with RunDatabase(path) as database, database.start_run("train") as run:
        for number in range(500):
            run.sample(f"{number}.mp4", "skipped", reason="x" * 50)


def garbage(data: bytes) -> bytes:
    return b"this is no database" * 100


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def holed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(8192) + data[middle + 8192 :]


@pytest.mark.parametrize("damage", [garbage, truncated, holed])
def test_a_damaged_database_is_set_aside_and_a_fresh_one_begun(
    path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    filled(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING), RunDatabase(path) as database:
        run = database.start_run("train")
        run.event("note", "still here")
        assert messages(database, run.id) == ["still here"]
        assert len(database.runs()) == 1
    (kept,) = set_aside(path)
    assert kept.read_bytes() == damaged
    assert kept.name in caplog.text


@settings(max_examples=60, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=30),
    cut=st.integers(0, 5),
)
def test_no_damage_keeps_a_run_from_starting(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "runs.sqlite"
    data = bytearray(filled_bytes())
    for position, value in flips:
        data[position % len(data)] = value
    path.write_bytes(data[: len(data) - cut * 1000])
    with contextlib.suppress(UserError):  # the header may now say that it is another program's
        with RunDatabase(path) as database:
            run = database.start_run("train")
            run.sample("a.mp4", "skipped")
            assert [sample.path for sample in database.samples(run.id)] == ["a.mp4"]
        return
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    is_foreign = (application, version) != (run_schema._APPLICATION_ID, run_schema.SCHEMA_VERSION)
    # https://sqlite.org/fileformat2.html: a write version above 2 makes a file that may only be read.
    may_only_be_read = data[18] > 2
    assert is_foreign or may_only_be_read


class Faulty:
    """A connection whose writing transactions fail as often as told."""

    def __init__(self, connection: sqlite3.Connection, error: sqlite3.Error, times: int) -> None:
        self.connection, self.error, self.times = connection, error, times

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement == "BEGIN IMMEDIATE" and self.times:
            self.times -= 1
            raise self.error
        return self.connection.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def test_damage_found_in_the_middle_of_a_run_does_not_stop_it(database: RunDatabase, path: Path) -> None:
    run = database.start_run("train", {"batch_size": 2})
    writer = database._writer
    writer._connection = Faulty(writer._connection, sqlite3.DatabaseError("database disk image is malformed"), 1)  # type: ignore[assignment]
    run.event("note", "after the damage")
    assert messages(database, run.id) == ["after the damage"]
    (record,) = database.runs()
    assert (record.id, record.config, record.status) == (run.id, {"batch_size": 2}, "running")
    assert len(set_aside(path)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
def test_a_database_deleted_in_the_middle_of_a_run_is_made_anew(database: RunDatabase, path: Path) -> None:
    run = database.start_run("train")
    run.event("note", "before")
    database.flush()
    path.unlink()
    run.event("note", "after")
    run.finish()
    reader = RunDatabase.open_readonly(path)
    assert messages(reader, run.id) == ["after"]
    assert reader.runs()[0].status == "finished"


def test_rows_wait_in_order_while_the_disk_is_full(database: RunDatabase, caplog: pytest.LogCaptureFixture) -> None:
    run = database.start_run("train")
    writer = database._writer
    writer._connection = Faulty(writer._connection, sqlite3.OperationalError("database or disk is full"), 3)  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        for number in range(6):
            run.event("note", str(number))
            database.flush()
    assert messages(database, run.id) == [str(number) for number in range(6)]
    assert caplog.text.count("disk is full") == 1  # said once, not with every attempt


def test_a_full_disk_for_hours_does_not_fill_the_memory(
    database: RunDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wan_fixes.health.run_writer.MAX_WAITING_ROWS", 10)
    run = database.start_run("train")
    database.flush()
    writer = database._writer
    writer._connection = Faulty(writer._connection, sqlite3.OperationalError("database or disk is full"), 10**9)  # type: ignore[assignment]
    for number in range(100):
        run.event("note", str(number))
    database.flush()
    writer._connection.times = 0  # type: ignore[attr-defined]
    assert messages(database, run.id) == [str(number) for number in range(90, 100)]
    assert "oldest are lost" in caplog.text


def test_what_cannot_be_written_is_tried_again_once_a_second_however_much_waits(
    database: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan_fixes.health.run_writer.INTERVAL_SECONDS", 30.0)
    run = database.start_run("train")
    database.flush()
    writer = database._writer
    faulty = Faulty(writer._connection, sqlite3.OperationalError("database or disk is full"), 10**9)
    writer._connection = faulty  # type: ignore[assignment]
    for number in range(5_000):
        run.event("note", str(number))
    database.flush()
    tried = faulty.times
    for number in range(5_000):
        run.event("note", str(number))
    assert faulty.times == tried
    faulty.times = 0
    assert len(messages(database, run.id)) == 10_000


def test_a_drive_that_was_away_is_written_to_again(database: RunDatabase, path: Path) -> None:
    run = database.start_run("train")
    run.sample("a.mp4", "valid")
    run.step(1, 0.5, 1e-4, 2.0)
    database.flush()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    path.parent.write_text("something else lies here", encoding="utf-8")
    run.event("note", "while it was away")
    database.flush()
    path.parent.unlink()
    away.rename(path.parent)
    assert messages(database, run.id) == ["while it was away"]
    assert database.sample_counts(run.id)["valid"] == 1
    assert [step.step for step in database.steps(run.id)] == [1]


def test_a_database_made_anew_has_all_that_is_known_of_the_run(database: RunDatabase, path: Path) -> None:
    run = database.start_run("train")
    run.counters({"cache_hits": 7})
    run.state("phase", "training")
    run.gauges({"memory_mb": 5.0})
    run.sample("a.mp4", "valid")
    database.flush()
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    run.event("note", "still here")
    assert messages(database, run.id) == ["still here"]
    assert database.counters_of(run.id) == {"cache_hits": 7}
    assert database.states(run.id) == {"phase": "training"}
    assert database.sample_counts(run.id)["valid"] == 1


def test_a_run_of_others_that_has_our_number_by_now_is_left_alone(
    database: RunDatabase, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = database.start_run("train")
    database.flush()
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    with RunDatabase(path, lambda: 1_000.0) as another:
        theirs = another.start_run("check")
        assert theirs.id == run.id
        theirs.event("note", "theirs")
        another.flush()
        with caplog.at_level(logging.WARNING):
            run.event("note", "ours")
            run.step(1, 0.5, 1e-4, 2.0)
            run.finish()
        assert messages(another, theirs.id) == ["theirs"]
        assert another.steps(theirs.id) == []
    assert [found.kind for found in RunDatabase.open_readonly(path).runs()] == ["check"]
    assert "the record of this run ends here" in caplog.text


def test_what_could_not_be_written_until_the_end_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = RunDatabase(path)
    run = database.start_run("train")
    database.flush()
    writer = database._writer
    writer._connection = Faulty(writer._connection, sqlite3.OperationalError("database or disk is full"), 10**9)  # type: ignore[assignment]
    run.event("note", "one")
    run.event("note", "two")
    with caplog.at_level(logging.WARNING):
        database.close()
    assert "2 records could not be written" in caplog.text


def test_one_value_that_cannot_be_stored_does_not_take_others_along(database: RunDatabase) -> None:
    run = database.start_run("train")
    run.step(1, 0.1, 1e-4, 0.1)
    run.step(2**70, 0.1, 1e-4, 0.1)
    run.step(3, 0.1, 1e-4, 0.1)
    assert [step.step for step in database.steps(run.id)] == [1, 3]


def test_recording_after_closing_is_ignored(path: Path) -> None:
    database = RunDatabase(path)
    run = database.start_run("train")
    database.close()
    database.close()
    run.event("note", "too late")
    run.finish()
    assert RunDatabase.open_readonly(path).events(run.id) == []


# Where it may live


def test_a_network_file_system_is_refused_with_a_message(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "network_file_system", lambda _: "nfs4")
    for opening in (RunDatabase, RunDatabase.open_readonly):
        with pytest.raises(UserError, match=r"run database cannot be kept on a network file system.*nfs4.*local disk"):
            opening(path)
    assert not path.parent.exists()


def test_a_missing_database_is_named_and_not_made(path: Path) -> None:
    with pytest.raises(UserError, match="there is no run database") as caught:
        RunDatabase.open_readonly(path)
    assert caught.value.path == str(path)
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be opened"):
        RunDatabase(tmp_path / "file" / "runs.sqlite")


def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    for opening in (RunDatabase, RunDatabase.open_readonly):
        with pytest.raises(UserError, match="another program's database"):
            opening(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_newer_version_is_left_alone(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match=r"format version 99.*update the plugin"):
        RunDatabase(path)
    assert set_aside(path) == []


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with RunDatabase(path) as database:
        assert database.start_run("train").id == 1


def test_a_damaged_database_cannot_be_read_and_says_so(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be read"):
        RunDatabase.open_readonly(path)
    assert path.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("with_log", [False, True])
def test_a_folder_that_cannot_be_written_to_can_be_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_log: bool
) -> None:
    """SQLite's refusal is put in by hand, since the account of a test may be allowed everything."""
    database = RunDatabase(path)
    run = database.start_run("train")
    run.event("note", "read me")
    database.flush()
    copied = tmp_path / "copied" / path.name
    copied.parent.mkdir()
    if not with_log:
        database.close()
    for file in path.parent.iterdir():
        if not file.name.endswith("-shm"):
            (copied.parent / file.name).write_bytes(file.read_bytes())
    database.close()
    connect = sqlite3.connect

    def refusing(name: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        if copied.parent.as_uri() in str(name) and "immutable" not in str(name):
            raise sqlite3.OperationalError("unable to open database file")
        return connect(name, *args, **kwargs)

    monkeypatch.setattr(run_schema.sqlite3, "connect", refusing)
    before = sorted(file.name for file in copied.parent.iterdir())
    reader = RunDatabase.open_readonly(copied)
    assert messages(reader, run.id) == ["read me"]
    assert sorted(file.name for file in copied.parent.iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this account may write everywhere")
def test_a_really_read_only_folder_can_be_read(path: Path) -> None:
    filled(path)
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        assert len(RunDatabase.open_readonly(path).samples(1)) == 500
    finally:
        path.parent.chmod(0o700)
