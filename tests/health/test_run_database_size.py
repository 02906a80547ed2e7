"""The run database stays small, however many samples and steps a run has, and forgets what is old."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from pathlib import Path

import pytest
from clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.health import RunDatabase, run_schema
from wan_fixes.health.run import KEPT_EVENTS, KEPT_STEPS, KEPT_WARNINGS
from wan_fixes.health.run_records import StepRecord
from wan_fixes.health.thinning import ThinningHistory

DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.sqlite"


def size_of(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def test_samples_and_steps_take_next_to_no_room(path: Path) -> None:
    with RunDatabase(path) as database, database.start_run("train") as run:
        run.flush()
        before = size_of(path)
        for number in range(20_000):
            run.sample(f"/clips/a folder of some depth/another one/clip number {number:06d}.mp4", "valid")
        for step in range(1, 50_001):
            run.step(step, 0.1, 1e-4, 0.5)
            run.gauges({"memory_mb": 1234.5, "available_mb": 1234.5, "steps": step})
        run.flush()
        assert database.sample_counts(run.id)["valid"] == 20_000
        assert database.step_count(run.id) == 50_000
        assert size_of(path) - before < 256 * 1024  # 200 bytes for each sample would be sixteen times as much


def test_what_was_left_out_is_bounded_by_its_texts(path: Path) -> None:
    with RunDatabase(path) as database, database.start_run("train") as run:
        for number in range(2_000):
            run.sample(f"/clips/{number:06d}.mp4", "skipped", "RobustVideoLoader", "the file is empty", "copy it again")
        run.flush()
        assert size_of(path) < 2_000 * 400


def test_warnings_of_every_sample_take_no_more_room_than_the_first_thousands(path: Path) -> None:
    with RunDatabase(path) as database, database.start_run("train") as run:
        for number in range(2 * KEPT_WARNINGS):
            run.sample(
                f"/clips/{number:06d}.mp4", "warning", "ValidatedCaptionLoader", "it has no caption", "write one"
            )
        assert database.sample_counts(run.id)["warning"] == 2 * KEPT_WARNINGS
        assert len(database.samples(run.id, "warning")) == KEPT_WARNINGS
        assert size_of(path) / (2 * KEPT_WARNINGS) < 200


def test_a_long_run_keeps_its_latest_events(path: Path) -> None:
    with RunDatabase(path) as database, database.start_run("train") as run:
        for number in range(KEPT_EVENTS + 2_000):
            run.event("cache_corruption", str(number))
        found = [event.message for event in database.events(run.id)]
        assert KEPT_EVENTS <= len(found) < KEPT_EVENTS + 1_000
        assert found[-1] == str(KEPT_EVENTS + 1_999)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 5_000),
    losses=st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=1, max_size=7),
)
def test_steps_put_together_are_still_all_the_steps(count: int, losses: list[float]) -> None:
    history = ThinningHistory[StepRecord](KEPT_STEPS, StepRecord.followed_by)
    steps = [
        StepRecord(number + 1, float(number), loss, 1e-4, 0.5, 1, int(math.isfinite(loss)))
        for number, loss in enumerate(losses[number % len(losses)] for number in range(count))
    ]
    for step in steps:
        history.add(step)
    assert len(history.points) <= KEPT_STEPS
    assert sum(point.count for point in history.points) == count
    assert sum(point.seconds for point in history.points) == pytest.approx(0.5 * count)
    assert [point.step for point in history.points] == sorted({point.step for point in history.points})
    if count:
        assert history.points[-1].step == count
    finite = [step.loss for step in steps if step.finite]
    kept = [point.loss * point.finite for point in history.points if point.finite]
    assert sum(kept) == pytest.approx(sum(finite), rel=1e-6, abs=1e-3 * max(map(abs, finite), default=0.0))
    assert all(point.finite or math.isnan(point.loss) for point in history.points)


def test_what_is_recorded_of_a_long_run_is_what_is_in_memory(path: Path) -> None:
    with RunDatabase(path) as database, database.start_run("train") as run:
        for step in range(1, 2_000):
            run.step(step, 1.0 / step, 1e-4, 0.5)
        assert database.steps(run.id) == run._steps.points


@settings(max_examples=60, deadline=None)
@given(
    verdicts=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["valid", "skipped", "failed", "warning"])), max_size=25
    )
)
def test_the_last_verdict_on_each_sample_counts(
    tmp_path_factory: pytest.TempPathFactory, verdicts: list[tuple[str, str]]
) -> None:
    with RunDatabase(tmp_path_factory.getbasetemp() / "verdicts.sqlite") as database:
        run = database.start_run("train")
        for path, status in verdicts:
            run.sample(path, status, reason=status)  # type: ignore[arg-type]
        last = {path: status for path, status in verdicts if status != "warning"}
        counts = database.sample_counts(run.id)
        run.finish()
    expected = {status: list(last.values()).count(status) for status in ("valid", "skipped", "failed")}
    assert counts == expected | {"warning": len({path for path, status in verdicts if status == "warning"})}


def test_runs_are_forgotten_when_they_are_old_and_their_room_is_given_back(path: Path) -> None:
    clock = Clock(1_000_000_000.0)
    with RunDatabase(path, clock, kept_days=30) as database:
        with database.start_run("train") as old:
            for number in range(5_000):
                old.sample(f"/clips/{number}.mp4", "skipped", reason="r" * 200)
        full = size_of(path)
        clock.now += 29 * DAY
        with database.start_run("train") as kept:
            pass
        assert [run.id for run in database.runs()] == [kept.id, old.id]
        clock.now += 2 * DAY
        with database.start_run("train") as latest:
            pass
        assert [run.id for run in database.runs()] == [latest.id, kept.id]
        assert database.samples(old.id) == []
    with RunDatabase(path, clock):
        assert size_of(path) < full / 4


def test_a_run_that_goes_on_is_kept_however_long_ago_it_began(path: Path) -> None:
    clock = Clock(1_000_000_000.0)
    with RunDatabase(path, clock, kept_days=1) as database:
        long_run = database.start_run("train")
        clock.now += 40 * DAY
        long_run.event("note", "still here")
        database._last_beat = -math.inf
        database.flush()
        database.start_run("check")
        assert {run.id for run in database.runs()} == {1, 2}


def test_all_answers_of_one_moment_are_of_one_moment(path: Path) -> None:
    with RunDatabase(path) as database:
        run = database.start_run("train")
        run.sample("a.mp4", "skipped")
        with database.one_moment():
            assert database.sample_counts(run.id)["skipped"] == 1
            run.sample("b.mp4", "skipped")
            run.flush()
            assert database.sample_counts(run.id)["skipped"] == 1
        assert database.sample_counts(run.id)["skipped"] == 2


@pytest.mark.parametrize("words", ["50%_of", "\\share", "IT IS", "Loader", "clip_1"])
def test_records_are_found_by_any_part_of_their_texts(path: Path, words: str) -> None:
    with RunDatabase(path) as database:
        run = database.start_run("train")
        run.sample(
            "\\\\server\\share\\clip_1.mp4", "skipped", "Loader", "it is 50%_of what it was", "copy it", "decode"
        )
        run.sample("other.mp4", "failed", "Encoder", "other reason", "none", "gpu")
        assert [sample.path for sample in database.samples(run.id, containing=words)] == [
            "\\\\server\\share\\clip_1.mp4"
        ]
        assert database.samples(run.id, containing="xclipx") == []
        assert [sample.path for sample in database.samples(run.id, "failed", "skipped", most=1)] == [
            "\\\\server\\share\\clip_1.mp4"
        ]


VERSION_1 = (
    "CREATE TABLE steps (run_id INTEGER NOT NULL, step INTEGER NOT NULL, time REAL NOT NULL, loss REAL, lr REAL, "
    "seconds REAL, PRIMARY KEY (run_id, step)) WITHOUT ROWID",
    "CREATE TABLE module_times (run_id INTEGER NOT NULL, module TEXT NOT NULL, seconds REAL NOT NULL, "
    "items INTEGER NOT NULL, PRIMARY KEY (run_id, module)) WITHOUT ROWID",
)


def make_version_1(path: Path) -> None:
    """As the first format had it, with one run of three samples and 1000 steps."""
    later = ("steps", "gauges", "states")
    tables = [text for name, text in run_schema._TABLES.items() if name not in later]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in (*tables, *VERSION_1, run_schema._INDEX):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {run_schema._APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO runs VALUES (1, 'train', '{}', 'finished', 9e8, 9e8, 9e8, 1, 1.0, 'x')")
        for name, status in (("a", "valid"), ("b", "valid"), ("c", "skipped")):
            row = (1, name, "", status, "", "why", "", "", 9e8)
            connection.execute(
                "INSERT INTO samples (run_id, path, warning, status, module, reason, fix, kind, time) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        for step in range(1, 1001):
            connection.execute("INSERT INTO steps VALUES (1, ?, 9e8, ?, 0.1, 0.5)", (step, None if step == 7 else 2.0))
        connection.commit()


def test_a_database_of_the_first_format_is_brought_up_to_date(path: Path) -> None:
    make_version_1(path)
    with pytest.raises(UserError, match="start a run") as refusal:
        RunDatabase.open_readonly(path)
    assert "version 1" in refusal.value.reason
    with RunDatabase(path, kept_days=36_500) as database:
        assert database.sample_counts(1) == {"valid": 2, "skipped": 1, "failed": 0, "warning": 0}
        assert database.step_count(1) == 1000
        assert database.steps(1)[-1].step == 1000
        assert {step.loss for step in database.steps(1)} == {2.0}
        second = database.start_run("train")
        second.step(1, 1.0, 1.0, 1.0)
        assert database.step_count(second.id) == 1
    assert list(path.parent.glob("*.damaged-*")) == []
