"""Whoever asks the run database again and again is told what has changed, and need not read all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.health import RunDatabase, RunReader


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[RunDatabase]:
    with RunDatabase(tmp_path / "runs.sqlite", Clock()) as database:
        yield database


VERDICTS = st.tuples(
    st.sampled_from(["a.mp4", "b.mp4", "c.mp4"]),
    st.sampled_from(["valid", "skipped", "failed", "warning"]),
    st.sampled_from(["", "empty", "cut off"]),
)


@settings(max_examples=15, deadline=None)
@given(verdicts=st.lists(VERDICTS, max_size=12))
def test_the_mark_differs_exactly_when_the_records_may(
    tmp_path_factory: pytest.TempPathFactory, verdicts: list[tuple[str, str, str]]
) -> None:
    with RunDatabase(tmp_path_factory.mktemp("marks") / "runs.sqlite", Clock()) as database:
        run = database.start_run("train")
        known = {}
        for path, status, reason in verdicts:
            run.sample(path, status, reason=reason)  # type: ignore[arg-type]
            mark = database.samples_mark(run.id)
            records = database.samples(run.id)
            assert known.setdefault(mark, records) == records
            assert database.samples_mark(run.id) == mark


def test_the_latest_steps_and_measurements_come_in_order(database: RunDatabase) -> None:
    run = database.start_run("train")
    for number in range(10):
        run.step(number, 0.5, 1e-4, 1.0)
        run.gauges({"steps": number})
    assert [step.step for step in database.steps(run.id, latest=3)] == [7, 8, 9]
    assert [gauge.values["steps"] for gauge in database.gauges(run.id, latest=3)] == [7, 8, 9]
    assert database.steps(run.id, latest=99) == database.steps(run.id)
    assert database.gauges(run.id, latest=99) == database.gauges(run.id)


@pytest.mark.parametrize("words", ["", "A.MP4", "loader", "50%", "_", "nothing"])
def test_as_many_records_are_counted_as_are_given(database: RunDatabase, words: str) -> None:
    run = database.start_run("train")
    run.sample("a.mp4", "skipped", "Loader", "50% lost")
    run.sample("b_c.mp4", "failed", "Loader", "empty")
    run.sample("b_c.mp4", "warning", "Captions", "none")
    for statuses in ((), ("skipped",), ("failed", "warning")):
        found = database.samples(run.id, *statuses, containing=words)
        assert database.count_samples(run.id, *statuses, containing=words) == len(found)


def test_a_warning_without_a_reason_takes_no_verdicts_place(database: RunDatabase) -> None:
    run = database.start_run("train")
    run.sample("a.mp4", "skipped", "Loader", "empty")
    run.sample("a.mp4", "warning")
    assert database.sample_counts(run.id) == {"valid": 0, "skipped": 1, "failed": 0, "warning": 1}
    assert [sample.reason for sample in database.samples(run.id)] == ["empty", ""]


def test_a_moment_within_a_moment_is_the_same_moment(database: RunDatabase) -> None:
    run = database.start_run("train")
    run.event("note", "before")
    database.flush()
    reader = RunReader(database.path)
    with reader.one_moment():
        assert len(reader.events(run.id)) == 1
        run.event("note", "after")
        database.flush()
        with reader.one_moment():
            assert len(reader.events(run.id)) == 1
        assert len(reader.events(run.id)) == 1, "it is not over with the inner one"
    assert len(reader.events(run.id)) == 2


def test_whether_samples_changed_is_told_by_an_index(database: RunDatabase) -> None:
    run = database.start_run("train")
    database.flush()
    with sqlite3.connect(database.path) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT MAX(time) FROM samples WHERE run_id = ?", (run.id,)
        ).fetchall()
    connection.close()
    assert "COVERING INDEX samples_of_run" in str(plan)
