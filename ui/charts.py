"""What is drawn of a run over time, as plain numbers: loss, speed, memory, samples left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from wan_fixes.health import GaugeRecord, RunReader, RunRecord, StepRecord

_MEMORY = {
    "used by the training": "memory_mb",
    "free on the machine": "available_mb",
    "swap": "swap_mb",
    "GPU": "gpu_memory_mb",
}
_RATES = {"made": "entries_made", "read": "entries_read"}

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart. What is no number has no point."""

    name: str
    unit: str
    points: Points
    """Seconds since the run began, and the value then."""


@dataclass(frozen=True, slots=True)
class Charts:
    """The lines of each chart, in the order in which they are drawn; none where nothing was measured."""

    loss: tuple[Series, ...]
    speed: tuple[Series, ...]
    """Steps, and entries of the cache made or read, per second."""
    memory: tuple[Series, ...]
    """In MB (1024² bytes)."""
    left_out: tuple[Series, ...]
    """Samples left out since the run began."""


def charts_of(database: RunReader, run: RunRecord) -> Charts:
    """The charts of a run, as of one moment. Raises `UserError` when the database cannot be read."""
    with database.one_moment():
        return make_charts(run.started, database.steps(run.id), database.gauges(run.id))


def make_charts(started: float, steps: Sequence[StepRecord], gauges: Sequence[GaugeRecord]) -> Charts:
    """The charts of what was recorded, in the order of time; `started` is when the run began, in seconds since 1970."""
    return Charts(
        loss=_drawn([Series("loss", "", _points(started, ((step.time, step.loss) for step in steps)))]),
        speed=_drawn(
            [
                Series("steps", "per second", _points(started, map(_step_rate, steps))),
                *(
                    Series(f"cache entries {name}", "per second", _rate(started, gauges, key))
                    for name, key in _RATES.items()
                ),
            ]
        ),
        memory=_drawn(Series(name, "MB", _gauge(started, gauges, key)) for name, key in _MEMORY.items()),
        left_out=_drawn([Series("left out", "samples", _gauge(started, gauges, "samples_left_out"))]),
    )


def _drawn(series: Iterable[Series]) -> tuple[Series, ...]:
    """Those of which there is anything."""
    return tuple(line for line in series if line.points)


def _step_rate(step: StepRecord) -> tuple[float, float]:
    return step.time, step.count / step.seconds if step.seconds > 0 else math.nan


def _gauge(started: float, gauges: Sequence[GaugeRecord], key: str) -> Points:
    return _points(started, ((gauge.time, gauge.values.get(key)) for gauge in gauges))


def _rate(started: float, gauges: Sequence[GaugeRecord], key: str) -> Points:
    """By how much a count grew in each second, between two moments that follow one another."""
    counts = _gauge(started, gauges, key)
    rates = (
        (now, max(0.0, count - count_before) / (now - before))
        for (before, count_before), (now, count) in itertools.pairwise(counts)
        if now > before
    )
    return _points(0.0, rates)


def _points(started: float, values: Iterable[tuple[float, object]]) -> Points:
    """Those that are numbers, from the first second on: a clock that was set back leaves no point before it."""
    return tuple(
        (max(0.0, moment - started), float(value))
        for moment, value in values
        if _is_number(moment) and _is_number(value)
    )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
