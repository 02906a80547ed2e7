"""Charts hold what was recorded, and nothing that is no number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from clock import Clock
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.health import GaugeRecord, RunDatabase, StepRecord
from wan_fixes.ui.charts import Charts, Series, charts_of, make_charts


def charts(steps: list[StepRecord] | None = None, gauges: list[GaugeRecord] | None = None) -> Charts:
    return make_charts(100.0, steps or [], gauges or [])


def test_a_recorded_run_is_drawn_from_its_start_on(tmp_path: Path) -> None:
    clock = Clock()
    with RunDatabase(tmp_path / "runs.sqlite", clock) as database, database.start_run("train") as run:
        for number in range(4):
            clock.now += 2
            run.step(number + 1, 1.0 / (number + 1), 1e-4, 2.0)
            run.gauges({"memory_mb": 100.0 + number, "entries_made": number * 6, "samples_left_out": number})
        record = database.run(run.id)
        assert record is not None
        found = charts_of(database, record)
    times = (2.0, 4.0, 6.0, 8.0)
    assert found.loss == (Series("loss", "", tuple(zip(times, (1.0, 0.5, 1 / 3, 0.25), strict=True))),)
    assert found.speed == (
        Series("steps", "per second", tuple((at, 0.5) for at in times)),
        Series("cache entries made", "per second", tuple((at, 3.0) for at in times[1:])),
    )
    assert found.memory == (Series("used by the training", "MB", tuple(zip(times, (100, 101, 102, 103), strict=True))),)
    assert found.left_out == (Series("left out", "samples", tuple(zip(times, (0, 1, 2, 3), strict=True))),)


def test_a_run_that_measured_nothing_has_no_lines() -> None:
    assert charts() == Charts((), (), (), ())


def test_a_loss_that_is_no_number_is_left_out() -> None:
    steps = [StepRecord(n, 100.0 + n, loss, 1e-4, 1.0) for n, loss in enumerate([0.5, math.nan, math.inf, 0.25])]
    (line,) = charts(steps).loss
    assert line.points == ((0.0, 0.5), (3.0, 0.25))


def test_steps_without_a_time_have_no_speed() -> None:
    assert charts([StepRecord(1, 101.0, 0.5, 1e-4, 0.0)]).speed == ()


def test_several_steps_put_together_count_as_many_in_the_speed() -> None:
    step = StepRecord(8, 108.0, 0.5, 1e-4, 4.0, count=8, finite=8)
    (line,) = charts([step]).speed
    assert line.points == ((8.0, 2.0),)


@pytest.mark.parametrize("value", ["much", None, True, math.nan, [1]])
def test_a_damaged_measurement_is_left_out(value: object) -> None:
    values = {"memory_mb": value, "samples_left_out": value}
    found = charts(gauges=[GaugeRecord(101.0, values)])  # type: ignore[arg-type]
    assert (found.memory, found.left_out) == ((), ())


def test_a_count_that_begins_anew_is_no_speed_below_zero() -> None:
    gauges = [GaugeRecord(100.0 + n, {"entries_read": count}) for n, count in enumerate([50, 60, 5, 9])]
    (line,) = charts(gauges=gauges).speed
    assert line.points == ((1.0, 10.0), (2.0, 0.0), (3.0, 4.0))


@given(
    steps=st.lists(st.tuples(st.floats(width=32), st.floats(), st.floats()), max_size=20),
    gauges=st.lists(
        st.tuples(st.floats(), st.dictionaries(st.sampled_from(["memory_mb", "entries_read"]), st.floats()))
    ),
)
def test_whatever_was_recorded_all_points_are_finite_and_none_is_before_the_start(
    steps: list[tuple[float, float, float]], gauges: list[tuple[float, dict[str, float]]]
) -> None:
    found = charts(
        [StepRecord(1, moment, loss, 1e-4, seconds) for loss, moment, seconds in steps],
        [GaugeRecord(moment, values) for moment, values in gauges],
    )
    for line in (*found.loss, *found.speed, *found.memory, *found.left_out):
        assert line.points
        for at, value in line.points:
            assert math.isfinite(at) and at >= 0 and math.isfinite(value)
