"""The watch says what was recorded, costs little, never raises, and gets well by itself."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes import filesystem
from wan_fixes.health import RunDatabase, run_schema
from wan_fixes.store import Quarantine
from wan_fixes.ui.view_model import SILENT_SECONDS
from wan_fixes.ui.watch import MOST_LEFT_OUT, Glance, RunWatch


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workspace" / "runs.sqlite"


@pytest.fixture
def database(path: Path, clock: Clock) -> Iterator[RunDatabase]:
    with RunDatabase(path, clock) as database:
        yield database


@pytest.fixture
def watch(path: Path, clock: Clock) -> RunWatch:
    return RunWatch(lambda: path, clock=clock, steady=clock)


def look_later(watch: RunWatch, clock: Clock, seconds: float = 10.0) -> Glance:
    """After so long that nothing is kept because it was asked just now."""
    clock.now += seconds
    return watch.look()


# What it shows


def test_before_the_first_look_there_is_nothing(watch: RunWatch) -> None:
    assert watch.latest() == Glance()


def test_the_latest_run_is_shown_also_after_its_end_and_from_another_process(
    watch: RunWatch, database: RunDatabase
) -> None:
    first = database.start_run("train", {"base_model_name": "a"})
    first.finish()
    second = database.start_run("check", {"base_model_name": "b"})
    database.flush()
    run = watch.look().run
    assert run is not None
    assert (run.run_id, run.kind, run.state, run.config) == (second.id, "check", "running", {"base_model_name": "b"})
    second.finish("failed")
    run = watch.look().run
    assert run is not None and run.state == "failed"


def test_a_run_of_a_process_that_died_is_seen_to_be_interrupted(watch: RunWatch, path: Path) -> None:
    program = (
        "import os, sys\n"
        "from wan_fixes.health import RunDatabase\n"
        "run = RunDatabase(sys.argv[1]).start_run('train')\n"
        "run.sample('a.mp4', 'skipped', 'Loader', 'truncated')\n"
        "run.flush()\n"
        "sys.stdout.write('ready')\n"
        "sys.stdout.flush()\n"
        "sys.stdin.read(1)\n"
        "os._exit(1)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        run = watch.look().run
        assert run is not None and (run.state, run.skipped) == ("running", 1)
        process.stdin.write(b"x")
    run = watch.look().run
    assert run is not None and run.state == "interrupted"


def test_the_number_rises_with_each_change_and_only_then(watch: RunWatch, database: RunDatabase, clock: Clock) -> None:
    run = database.start_run("train")
    database.flush()
    first = watch.look()
    assert first.number == 1
    assert watch.look() is first
    clock.now += 1  # its age is a change
    second = watch.look()
    assert second.number == 2 and second == replace(first, number=2, run=second.run)
    run.finish()
    third = watch.look()
    assert third.number == 3
    clock.now += 30  # a run that has ended changes no more
    assert watch.look() is third


def test_what_changed_while_a_run_ended_is_not_kept_from_before(
    watch: RunWatch, database: RunDatabase, clock: Clock
) -> None:
    run = database.start_run("train")
    run.sample("a.mp4", "skipped")
    database.flush()
    assert watch.look().left_out_total == 1
    run.sample("b.mp4", "failed")
    run.finish()
    glance = watch.look()  # within the time in which a running run is not counted again
    assert glance.run is not None and (glance.run.skipped, glance.run.failed) == (1, 1)
    assert [sample.path for sample in glance.left_out] == ["a.mp4", "b.mp4"]


def test_while_a_run_goes_on_what_it_left_out_is_not_counted_every_second(
    watch: RunWatch, database: RunDatabase, clock: Clock
) -> None:
    run = database.start_run("train")
    for seconds, name in ((0, "a.mp4"), (1, "b.mp4"), (1, "c.mp4")):
        clock.now += seconds
        run.sample(name, "skipped")
        run.sample(f"good {name}", "valid")
        database.flush()
        watch.look()
    glance = watch.latest()
    assert glance.run is not None
    assert (glance.run.skipped, glance.left_out_total, glance.run.valid) == (1, 1, 3)
    glance = look_later(watch, clock, 1.0)
    assert glance.run is not None
    assert (glance.run.skipped, glance.left_out_total) == (3, 3)


def test_a_run_that_hangs_as_a_whole_is_an_alert(watch: RunWatch, database: RunDatabase, clock: Clock) -> None:
    run = database.start_run("train")
    run.state("alerts", [{"kind": "memory", "message": "full", "fix": "close", "since": 5.0}])
    database.flush()
    before = watch.look().run
    assert before is not None and [alert.kind for alert in before.alerts] == ["memory"]
    begun = clock.now
    database._last_beat = clock.now + 1e9  # as if its threads stood still
    clock.now += SILENT_SECONDS + 61
    after = watch.look().run
    assert after is not None
    assert [alert.kind for alert in after.alerts] == ["memory", "silent"]
    silent = after.alerts[1]
    assert "2 minutes" in silent.message and str(os.getpid()) in silent.message and silent.fix
    assert silent.since == begun
    run.finish()
    ended = watch.look().run
    assert ended is not None and [alert.kind for alert in ended.alerts] == ["memory"]


# The list of what was left out


def fill(database: RunDatabase) -> None:
    run = database.start_run("train")
    for number in range(3):
        run.sample(f"cats/{number}.mp4", "skipped", "Loader", "truncated", "copy it again", "SampleError")
        run.sample(f"dogs/{number}.mp4", "failed", "Encoder", "NaN in it", "", "ValueError")
        run.sample(f"birds/{number}.mp4", "warning", "Captions", "no caption")
    database.flush()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, ["cats/0", "dogs/0", "cats/1", "dogs/1", "cats/2", "dogs/2"]),
        ({"filter_text": "CATS"}, ["cats/0", "cats/1", "cats/2"]),
        ({"filter_text": "encoder"}, ["dogs/0", "dogs/1", "dogs/2"]),
        ({"filter_text": "sampleerror", "statuses": ("failed",)}, []),
        ({"statuses": ("warning",)}, ["birds/0", "birds/1", "birds/2"]),
        ({"statuses": ("warning", "failed"), "filter_text": "/1."}, ["dogs/1", "birds/1"]),
        ({"statuses": ()}, []),
        ({"filter_text": "%"}, []),
    ],
)
def test_the_list_is_what_was_asked_for(
    watch: RunWatch, database: RunDatabase, shown: dict[str, Any], expected: list[str]
) -> None:
    fill(database)
    watch.look()
    watch.show(**shown)
    glance = watch.look()
    assert [sample.path.removesuffix(".mp4") for sample in glance.left_out] == expected
    assert glance.left_out_total == len(expected)


def test_what_is_not_said_anew_stays_as_it_was(watch: RunWatch, database: RunDatabase) -> None:
    fill(database)
    watch.show(filter_text="1.mp4", statuses=("failed",))
    watch.show(charts=True)
    watch.show(models=False)
    glance = watch.look()
    assert [sample.path for sample in glance.left_out] == ["dogs/1.mp4"]
    assert glance.charts is not None


def test_a_long_list_is_cut_and_its_length_is_said(watch: RunWatch, database: RunDatabase) -> None:
    run = database.start_run("train")
    for number in range(MOST_LEFT_OUT + 100):
        run.sample(f"{number}.mp4", "skipped", reason="odd" if number % 2 else "even")
    database.flush()
    glance = watch.look()
    assert (len(glance.left_out), glance.left_out_total) == (MOST_LEFT_OUT, MOST_LEFT_OUT + 100)
    watch.show(filter_text="odd")
    glance = watch.look()
    assert (len(glance.left_out), glance.left_out_total) == (MOST_LEFT_OUT // 2 + 50,) * 2


NAMES = st.sampled_from(["a.mp4", "A/b.mov", "100%.mp4", "under_score", "back\\slash", "é.mp4"])
RECORDS = st.lists(
    st.tuples(
        NAMES,
        st.sampled_from(["valid", "skipped", "failed", "warning"]),
        st.sampled_from(["Loader", "Encoder"]),
        st.sampled_from(["truncated", "50% lost", "NaN_", ""]),
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(
    records=RECORDS,
    losses=st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=12),
    text=st.sampled_from(["", "a", "%", "_", "\\", "50%", "loader", "É", "nothing has this"]),
    statuses=st.sets(st.sampled_from(["skipped", "failed", "warning"])),
)
def test_what_it_says_is_what_was_recorded(
    records: list[tuple[str, Any, str, str]], losses: list[float], text: str, statuses: set[str]
) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, RunDatabase(Path(folder) / "runs.sqlite", clock) as database:
        run = database.start_run("train")
        verdicts: dict[str, tuple[str, str, str, str]] = {}
        warnings: dict[tuple[str, str], tuple[str, str, str, str]] = {}
        for record in records:
            path, status, _, reason = record
            run.sample(path, status, record[2], reason)
            if status == "warning":
                warnings[path, reason] = record
            else:
                verdicts[path] = record
        for number, loss in enumerate(losses):
            run.step(number + 1, loss, 1e-4, 1.0)
        database.flush()
        watch = RunWatch(lambda: database.path, clock=clock, steady=clock)
        watch.show(filter_text=text, statuses=tuple(sorted(statuses)), charts=True)
        glance = watch.look()
    counts = Counter(status for _, status, _, _ in verdicts.values())
    shown = glance.run
    assert glance.problem == "" and shown is not None
    assert (shown.valid, shown.skipped, shown.failed) == (counts["valid"], counts["skipped"], counts["failed"])
    assert shown.warned == len({path for path, _ in warnings})
    assert shown.steps == len(losses)
    found = {(sample.path, sample.status, sample.module, sample.reason) for sample in glance.left_out}
    expected = {
        record
        for record in (*verdicts.values(), *warnings.values())
        if record[1] in statuses and any(text.lower() in part.lower() for part in (record[0], record[2], record[3]))
    }
    if text != "É":  # SQLite folds the case of plain letters alone
        assert found == expected
    assert glance.left_out_total == len(glance.left_out) == len(found)
    assert glance.charts is not None
    assert [value for line in glance.charts.loss for _, value in line.points] == [
        loss for loss in losses if loss == loss
    ]


# Charts


def test_charts_are_made_for_whoever_looks_at_them(watch: RunWatch, database: RunDatabase, clock: Clock) -> None:
    run = database.start_run("train")
    run.step(1, 0.5, 1e-4, 1.0)
    database.flush()
    assert watch.look().charts is None
    watch.show(charts=True)
    charts = watch.look().charts
    assert charts is not None and len(charts.loss[0].points) == 1
    run.step(2, 0.25, 1e-4, 1.0)
    database.flush()
    assert look_later(watch, clock, 1.0).charts is charts, "they are not drawn anew every second"
    charts = look_later(watch, clock).charts
    assert charts is not None and len(charts.loss[0].points) == 2
    assert look_later(watch, clock).charts is charts, "nothing has changed"
    run.step(3, 0.125, 1e-4, 1.0)
    run.finish()
    charts = watch.look().charts
    assert charts is not None and len(charts.loss[0].points) == 3, "the last step is in them at once"
    watch.show(charts=False)
    assert watch.look().charts is None


# Quarantine


def test_the_quarantine_of_the_runs_cache_is_counted_and_nothing_is_made(
    watch: RunWatch, database: RunDatabase, clock: Clock, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run = database.start_run("train", {"cache_dir": str(cache)})
    database.flush()
    assert watch.look().quarantined == 0
    assert not cache.exists()
    quarantine = Quarantine(cache / "quarantine.sqlite")
    quarantine.add(tmp_path / "a.mp4", "1", "damaged")
    quarantine.add(tmp_path / "b.mp4", "2 0-9", "damaged")
    quarantine.add(tmp_path / "b.mp4", "2 9-18", "damaged")
    assert watch.look().quarantined == 2
    quarantine.forget(tmp_path / "b.mp4")
    assert watch.look().quarantined == 1
    quarantine.close()
    there = sorted(cache.iterdir())
    assert watch.look().quarantined == 1
    assert sorted(cache.iterdir()) == there
    run.finish()
    with contextlib.closing(sqlite3.connect(cache / "quarantine.sqlite")) as connection, connection:
        connection.execute("DELETE FROM files")
    watch.look()
    assert watch.look().quarantined == 0, "also of a run that has ended"


def test_what_a_killed_process_put_into_quarantine_counts(tmp_path: Path) -> None:
    from wan_fixes.store.quarantine import count_quarantined

    place = tmp_path / "quarantine.sqlite"
    program = (
        "import os, sys\n"
        "from wan_fixes.store import Quarantine\n"
        "Quarantine(sys.argv[1]).add('a.mp4', '1', 'damaged')\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(place)], check=False, timeout=60)
    place.with_name("quarantine.sqlite-shm").unlink()  # as after the machine was switched off
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert count_quarantined(place) == 1
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"no database" * 500])
def test_a_quarantine_that_cannot_be_read_counts_as_empty_and_stays(
    watch: RunWatch, database: RunDatabase, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "quarantine.sqlite").write_bytes(content)
    database.start_run("train", {"cache_dir": str(tmp_path)})
    database.flush()
    glance = watch.look()
    assert (glance.quarantined, glance.problem) == (0, "")
    assert (tmp_path / "quarantine.sqlite").read_bytes() == content


# What can be wrong


def missing(path: Path) -> None:
    path.unlink()


def folder_gone(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def damaged(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def newer_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {run_schema.SCHEMA_VERSION + 1}")


def of_another_program(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def a_folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def an_empty_file(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (missing, "there is no run database"),
        (folder_gone, "there is no run database"),
        (damaged, "cannot be read"),
        (cut_off, "cannot be read"),
        (newer_version, "format version"),
        (of_another_program, "another program's database"),
        (a_folder_instead, "there is no run database"),
        (an_empty_file, "cannot be read"),
    ],
)
def test_a_database_that_cannot_be_read_is_a_problem_in_words_until_it_can_be_read_again(
    watch: RunWatch, path: Path, clock: Clock, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    with RunDatabase(path, clock) as database, database.start_run("train") as run:
        run.sample("a.mp4", "skipped")
    good = watch.look()
    assert good.run is not None and good.problem == ""
    aside = path.read_bytes()
    harm(path)
    bad = watch.look()
    assert bad.run is None and words in bad.problem and str(path) in bad.problem
    assert "(" in bad.problem, "it says what helps"
    assert (bad.left_out, bad.left_out_total, bad.charts) == ((), 0, None)
    assert watch.look() is bad, "the same problem is no change"
    with contextlib.suppress(OSError):
        path.rmdir()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(aside)
    again = watch.look()
    assert again.run == good.run and again.left_out == good.left_out
    assert again.number > bad.number > good.number


def test_a_database_that_somebody_has_locked_is_shown_as_it_stands(
    watch: RunWatch, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunDatabase(path, clock) as database:
        database.start_run("train").finish()
    monkeypatch.setattr(run_schema, "_BUSY_SECONDS", 0.01)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        glance = watch.look()
        assert glance.run is not None and (glance.run.state, glance.problem) == ("finished", "")
        holder.execute("COMMIT")


def test_a_workspace_on_a_network_is_a_problem_in_words(
    watch: RunWatch, database: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.start_run("train")
    database.flush()
    monkeypatch.setattr(filesystem, "network_file_system", lambda _: "nfs4")
    glance = watch.look()
    assert glance.run is None and "nfs4" in glance.problem and "local disk" in glance.problem
    monkeypatch.undo()
    assert watch.look().run is not None


def test_no_workspace_and_a_workspace_without_runs_are_said(path: Path, database: RunDatabase, clock: Clock) -> None:
    assert "no workspace folder" in RunWatch(lambda: None).look().problem
    glance = RunWatch(lambda: path, clock=clock).look()
    assert glance.run is None and "nothing has been run" in glance.problem


def test_a_place_that_the_system_refuses_is_a_problem_in_words(path: Path, database: RunDatabase) -> None:
    database.start_run("train")
    database.flush()
    places = [path.with_name("x" * 300), path]
    watch = RunWatch(lambda: places.pop(0))
    assert "cannot be read" in watch.look().problem and "who may read" in watch.latest().problem
    assert watch.look().run is not None


@pytest.mark.parametrize("cache_dir", [None, 7, "", "a\0b", "x" * 300, "~nobody-of-that-name/cache"])
def test_an_odd_cache_folder_hides_no_run(watch: RunWatch, database: RunDatabase, cache_dir: object) -> None:
    database.start_run("train", {"cache_dir": cache_dir})
    database.flush()
    glance = watch.look()
    assert glance.run is not None and (glance.quarantined, glance.problem) == (0, "")


def test_whatever_the_place_raises_becomes_a_problem(path: Path, database: RunDatabase) -> None:
    database.start_run("train")
    database.flush()
    places: list[Callable[[], Path]] = [lambda: path / str(1 // 0), lambda: path]
    watch = RunWatch(lambda: places.pop(0)())
    assert "ZeroDivisionError" in watch.look().problem
    assert watch.look().run is not None


def test_a_secret_in_a_path_is_not_shown(tmp_path: Path) -> None:
    glance = RunWatch(lambda: tmp_path / "hf_abcdefghijklmnop" / "runs.sqlite").look()
    assert "hf_abcdefghijklmnop" not in glance.problem and "***" in glance.problem


def test_another_workspace_is_looked_at_from_the_next_round_on(tmp_path: Path, clock: Clock) -> None:
    paths = [tmp_path / name / "runs.sqlite" for name in ("one", "two")]
    for number, path in enumerate(paths):
        with RunDatabase(path, clock) as database, database.start_run("train") as run:
            for sample in range(number + 1):
                run.sample(f"{sample}.mp4", "skipped")
    places = iter([paths[0], paths[1], paths[0]])
    watch = RunWatch(lambda: next(places), clock=clock, steady=clock)
    assert [watch.look().left_out_total for _ in range(3)] == [1, 2, 1]


def test_a_database_that_was_made_anew_is_seen(watch: RunWatch, path: Path, clock: Clock) -> None:
    for name in ("a.mp4", "b.mp4"):
        path.unlink(missing_ok=True)
        with RunDatabase(path, clock) as database, database.start_run("train") as run:
            run.sample(name, "skipped")
        assert [sample.path for sample in look_later(watch, clock).left_out] == [name]


# The thread


class Looks:
    """A place that tells when it is asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.changed = threading.Condition()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self) -> Path:
        with self.changed:
            self.count += 1
            self.changed.notify_all()
        assert self.may_go_on.wait(30)
        return self.path

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.count >= count, timeout=30)


def test_it_looks_by_itself_until_it_is_stopped(path: Path, database: RunDatabase) -> None:
    looks = Looks(path)
    watch = RunWatch(looks, interval_seconds=0.01)
    watch.start()
    watch.start()
    looks.wait_for(3)
    watch.stop()
    assert watch._thread is not None and not watch._thread.is_alive()
    count = looks.count
    watch.stop()
    watch.start()
    looks.wait_for(count + 2)
    watch.stop()
    assert threading.active_count() == len([t for t in threading.enumerate() if t.name != "wan-run-watch"])


def test_what_the_window_asks_for_is_asked_at_once(path: Path, database: RunDatabase) -> None:
    fill(database)
    looks = Looks(path)
    watch = RunWatch(looks, interval_seconds=3600)
    watch.start()
    looks.wait_for(1)
    watch.show(filter_text="cats")
    looks.wait_for(2)
    watch.show(filter_text="cats")  # nothing new
    watch.show(filter_text="dogs")
    looks.wait_for(3)
    watch.show(charts=True)
    looks.wait_for(4)  # so the round before is over
    watch.stop()
    assert {sample.path.partition("/")[0] for sample in watch.latest().left_out} == {"dogs"}


def test_neither_looking_nor_stopping_waits_for_a_round_that_hangs(path: Path, database: RunDatabase) -> None:
    database.start_run("train")
    database.flush()
    looks = Looks(path)
    looks.may_go_on.clear()
    watch = RunWatch(looks)
    watch.start()
    looks.wait_for(1)
    assert watch.latest() == Glance()
    watch.show(charts=True)
    watch.stop()
    thread = watch._thread
    assert thread is not None and thread.is_alive()
    looks.may_go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    assert watch.latest() == Glance(), "what comes after the end is not shown"


def test_a_program_that_forgets_to_stop_it_can_end(path: Path, database: RunDatabase) -> None:
    program = (
        "import sys, pathlib\n"
        "from wan_fixes.ui.watch import RunWatch\n"
        "RunWatch(lambda: pathlib.Path(sys.argv[1])).start()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)


def test_watching_writes_nothing(watch: RunWatch, path: Path, clock: Clock) -> None:
    with RunDatabase(path, clock) as database:
        fill(database)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    watch.show(charts=True)
    assert watch.look().left_out_total == 6
    look_later(watch, clock, 100.0)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()} == before
