"""The view model counts right, sums right, and says how a run stands."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clock import Clock

from wan_fixes.health import Metrics, RunDatabase
from wan_fixes.ui.view_model import RunView, view_run


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path, clock: Clock) -> Iterator[RunDatabase]:
    with RunDatabase(tmp_path / "runs.sqlite", clock) as database:
        yield database


def view(database: RunDatabase, clock: Clock) -> RunView:
    shown = view_run(database, clock=clock)
    assert shown is not None
    return shown


def test_there_is_nothing_to_see_before_the_first_run(database: RunDatabase) -> None:
    assert view_run(database) is None
    assert view_run(database, 7) is None


def test_samples_are_counted_once_with_their_last_verdict(database: RunDatabase, clock: Clock) -> None:
    run = database.start_run("train")
    for name in ("a", "b", "c", "d"):
        run.sample(f"{name}.mp4", "valid")
    run.sample("c.mp4", "skipped", "Loader", "truncated", "copy it again")
    run.sample("d.mp4", "failed", "Loader", "truncated", "copy it again")
    run.sample("a.mp4", "warning", "Captions", "no caption")
    run.sample("a.mp4", "warning", "Captions", "odd frame rate")
    shown = view(database, clock)
    assert (shown.valid, shown.skipped, shown.failed, shown.warned) == (2, 1, 1, 1)
    assert [(s.path, s.reason, s.fix) for s in shown.skipped_samples] == [
        ("c.mp4", "truncated", "copy it again"),
        ("d.mp4", "truncated", "copy it again"),
    ]
    assert shown.reasons == (("truncated", 2),)
    assert [s.reason for s in shown.warnings] == ["no caption", "odd frame rate"]


def test_cache_and_module_figures_come_from_the_counters_of_all_labels(database: RunDatabase, clock: Clock) -> None:
    metrics = Metrics()
    metrics.count("cache_hits", 3, cache="image")
    metrics.count("cache_hits", 6, cache="text")
    metrics.count("cache_misses", 1, cache="text")
    metrics.count("cache_hits_elsewhere", 100)
    metrics.time("RobustVideoLoader", 2.0)
    metrics.time("RobustVideoLoader", 4.0)
    run = database.start_run("train")
    run.counters(metrics.snapshot())
    metrics.time("Encoder", 10.0)
    run.counters(metrics.snapshot())
    shown = view(database, clock)
    assert (shown.cache_hits, shown.cache_misses, shown.cache_hit_rate) == (9, 1, 0.9)
    assert [(m.module, m.seconds, m.items, m.items_per_second) for m in shown.modules] == [
        ("Encoder", 10.0, 1, 0.1),
        ("RobustVideoLoader", 6.0, 2, pytest.approx(1 / 3)),
    ]


def test_without_look_ups_there_is_no_hit_rate(database: RunDatabase, clock: Clock) -> None:
    database.start_run("train")
    shown = view(database, clock)
    assert shown.cache_hit_rate is None
    assert shown.last_step is None
    assert shown.steps_per_second == 0.0


def test_speed_is_taken_over_the_latest_steps(database: RunDatabase, clock: Clock) -> None:
    run = database.start_run("train")
    for step in range(100):
        run.step(step, loss=1 / (step + 1), lr=1e-4, seconds=100.0 if step < 50 else 0.5)
    shown = view(database, clock)
    assert shown.steps == 100
    assert shown.last_step is not None and shown.last_step.loss == 0.01
    assert shown.steps_per_second == pytest.approx(2.0)


def test_a_loss_that_is_not_a_number_is_shown_as_such(database: RunDatabase, clock: Clock) -> None:
    database.start_run("train").step(1, math.nan, 1e-4, 0.1)
    last = view(database, clock).last_step
    assert last is not None and math.isnan(last.loss)


def test_age_goes_on_and_duration_ends_with_the_run(database: RunDatabase, clock: Clock) -> None:
    run = database.start_run("train", {"batch_size": 2})
    clock.now += 60
    assert view(database, clock).state == "running"
    assert view(database, clock).duration_seconds == 60
    run.event("run_finished", "done", steps=1)
    run.finish()
    clock.now += 40
    shown = view(database, clock)
    assert (shown.state, shown.age_seconds, shown.duration_seconds, shown.silent_seconds) == ("finished", 100, 60, 40)
    assert shown.config == {"batch_size": 2}
    assert shown.last_event is not None
    assert shown.last_event.message == "done"


def test_each_run_is_seen_by_itself(database: RunDatabase, clock: Clock) -> None:
    first = database.start_run("train")
    first.sample("a.mp4", "skipped", reason="empty")
    second = database.start_run("check")
    second.sample("a.mp4", "valid")
    assert view(database, clock).kind == "check"
    assert view(database, clock).skipped == 0
    earlier = view_run(database, first.id, clock)
    assert earlier is not None
    assert (earlier.kind, earlier.skipped, earlier.valid) == ("train", 1, 0)


def test_importing_it_loads_neither_torch_nor_a_toolkit() -> None:
    code = (
        "import sys, wan_fixes.ui.view_model as _; "
        "sys.exit(' '.join(m for m in ('torch', 'tkinter', 'customtkinter', 'PySide6') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
