"""The monitor records what a run does, from the outside, and never stands in its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from clock import Clock

from wan_fixes.health import ErrorRecoveryManager, Metrics, RunDatabase, RunMonitor
from wan_fixes.health.memory import MemoryStats
from wan_fixes.settings import Settings


class Pipeline:
    """What a monitor sees of a pipeline."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.recovery = ErrorRecoveryManager(Settings())
        self.sizes: dict[str, tuple[int, int]] = {}

    def cache_sizes(self) -> Mapping[str, tuple[int, int]]:
        return self.sizes


@pytest.fixture
def database(tmp_path: Path) -> Iterator[RunDatabase]:
    with RunDatabase(tmp_path / "runs.sqlite") as database:
        yield database


def test_the_counters_of_all_pipelines_come_together(database: RunDatabase) -> None:
    run = database.start_run("train")
    monitor = RunMonitor(run, Settings())
    for seconds in (1.0, 3.0):
        pipeline = Pipeline()
        pipeline.metrics.count("cache_hits", 2)
        pipeline.metrics.time("RobustVideoLoader", seconds)
        monitor.watch(pipeline)
    monitor.look()
    assert database.counters_of(run.id) == {
        "cache_hits": 4,
        "RobustVideoLoader.calls": 2,
        "RobustVideoLoader.seconds": 4.0,
        "RobustVideoLoader.max_seconds": 3.0,
    }


def test_memory_speed_and_caches_are_on_record(database: RunDatabase) -> None:
    run = database.start_run("train")
    pipeline = Pipeline()
    pipeline.sizes = {"/cache": (7, 1_000)}
    monitor = RunMonitor(run, Settings(), memory=lambda: MemoryStats(10.0, 20.0, 30.0, 40.0, 50.0, 60.0))
    monitor.watch(pipeline)
    monitor.enter("caching", should_move=True)
    pipeline.metrics.count("cache_written", 3)
    monitor.stepped()
    monitor.look()
    (measured,) = database.gauges(run.id)
    expected = {"memory_mb": 10.0, "peak_memory_mb": 20.0, "available_mb": 30.0, "gpu_memory_mb": 40.0, "swap_mb": 50.0}
    assert expected.items() <= measured.values.items()
    assert (measured.values["steps"], measured.values["entries_made"]) == (1, 3)
    states = database.states(run.id)
    assert states["phase"] == "caching"
    assert states["caches"] == {"/cache": {"entries": 7, "bytes": 1_000}}


def test_an_alert_is_told_logged_and_recorded_once(database: RunDatabase, caplog: pytest.LogCaptureFixture) -> None:
    run = database.start_run("train")
    pipeline = Pipeline()
    monitor = RunMonitor(run, Settings())
    monitor.watch(pipeline)
    pipeline.metrics.set("samples_known", 10)
    pipeline.metrics.set("samples_left_out", 5)
    with caplog.at_level(logging.WARNING, "wan_fixes"):
        monitor.look()
        monitor.look()
    assert caplog.text.count("5 of 10 samples are left out") == 1
    assert [event.kind for event in database.events(run.id)] == ["alert"]
    assert [alert["kind"] for alert in database.states(run.id)["alerts"]] == ["error_rate"]
    pipeline.metrics.set("samples_known", 100)
    monitor.look()
    assert [event.kind for event in database.events(run.id)] == ["alert", "alert_over"]
    assert database.states(run.id)["alerts"] == []


def test_a_stall_is_seen_only_where_something_should_move(database: RunDatabase) -> None:
    clock, pipeline, run = Clock(1_000.0), Pipeline(), database.start_run("train")
    monitor = RunMonitor(run, Settings(), clock=clock)
    monitor.watch(pipeline)
    monitor.enter("loading the model")
    clock.now += 5_000
    monitor.look()
    monitor.enter("training", should_move=True)
    for _ in range(3):
        clock.now += 500
        monitor.stepped()
        monitor.look()
        clock.now += 500
        pipeline.metrics.time("RobustVideoLoader", 0.1)
        monitor.look()
    assert database.events(run.id) == []
    clock.now += 601
    monitor.look()
    assert [(event.kind, event.facts["alert"]) for event in database.events(run.id)] == [("alert", "stall")]
    monitor.stepped()
    monitor.look()
    assert [event.kind for event in database.events(run.id)] == ["alert", "alert_over"]


def test_a_module_that_is_switched_off_is_an_alert(database: RunDatabase) -> None:
    run = database.start_run("train")
    pipeline = Pipeline()
    monitor = RunMonitor(run, Settings())
    monitor.watch(pipeline)
    for _ in range(20):
        pipeline.recovery.record("ScaleImage", RuntimeError("no"), item="a.mp4")
    monitor.look()
    assert database.states(run.id)["breakers"] == {"ScaleImage": "open"}
    assert database.states(run.id)["alerts"][0]["kind"] == "module_off"


def test_it_looks_by_itself_and_a_last_time_at_the_end(database: RunDatabase) -> None:
    run, pipeline, looked = database.start_run("train"), Pipeline(), threading.Event()

    def sizes() -> Mapping[str, tuple[int, int]]:
        looked.set()
        return {}

    pipeline.cache_sizes = sizes  # type: ignore[method-assign]
    with RunMonitor(run, Settings(), interval_seconds=0.01) as monitor:
        monitor.watch(pipeline)
        assert looked.wait(20)
        pipeline.metrics.count("cache_hits", 9)
    assert database.counters_of(run.id)["cache_hits"] == 9
    before = len(database.gauges(run.id))
    monitor.close()  # a second time does nothing
    assert len(database.gauges(run.id)) == before


@pytest.mark.parametrize("fault", [OSError("no /proc here"), ValueError("an odd line"), KeyError("no such device")])
def test_what_cannot_be_measured_costs_nothing_else(database: RunDatabase, fault: Exception) -> None:
    run, pipeline = database.start_run("train"), Pipeline()

    def broken() -> Any:
        raise fault

    pipeline.cache_sizes = broken  # type: ignore[method-assign]
    pipeline.metrics.set("samples_known", 10)
    pipeline.metrics.set("samples_left_out", 5)
    with RunMonitor(run, Settings(), memory=broken, interval_seconds=0.01) as monitor:
        monitor.watch(pipeline)
        run.event("note", "still here")
    assert [alert["kind"] for alert in database.states(run.id)["alerts"]] == ["error_rate"]
    assert database.gauges(run.id)[-1].values["samples_left_out"] == 5
    assert "note" in [event.kind for event in database.events(run.id)]


def test_a_pipeline_that_cannot_even_be_counted_does_not_end_the_run(database: RunDatabase) -> None:
    run, pipeline = database.start_run("train"), Pipeline()
    pipeline.metrics = None  # type: ignore[assignment]
    with RunMonitor(run, Settings(), interval_seconds=0.01) as monitor:
        monitor.watch(pipeline)
        run.event("note", "still here")
    assert [event.message for event in database.events(run.id)] == ["still here"]


def test_of_two_pipelines_the_graver_state_of_a_module_counts(database: RunDatabase) -> None:
    run, training, validation = database.start_run("train"), Pipeline(), Pipeline()
    for _ in range(20):
        training.recovery.record("ScaleImage", RuntimeError("no"), item="a.mp4")
        validation.recovery.record("ScaleImage", None)
    monitor = RunMonitor(run, Settings())
    monitor.watch(training)
    monitor.watch(validation)
    monitor.look()
    assert database.states(run.id)["breakers"] == {"ScaleImage": "open"}
