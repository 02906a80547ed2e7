"""Where the lines, ticks and texts of a chart go, in pixels: what each toolkit then draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wan_fixes.ui.charts import Series
from wan_fixes.ui.theme import SERIES_COLOURS
from wan_fixes.ui.words import line

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 30, 26, 24  # pixels around the lines
_TICKS = 4  # about so many lines across
_SECONDS_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_DOT = 3.0  # pixels: a line of one point would not be seen


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through points, in the colour of this name of the theme."""

    points: tuple[float, ...]
    """x and y in turn."""
    colour: str
    dash: int = 0
    """Which of `theme.DASHES`."""
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Label:
    """A text beside a point."""

    x: float
    y: float
    text: str
    anchor: Literal["left", "right", "centre"]
    colour: str = "dim"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart."""

    strokes: tuple[Stroke, ...] = ()
    labels: tuple[Label, ...] = ()


def draw(series: Sequence[Series], width: float, height: float, *, scale: float = 1.0, empty: str = "") -> Drawing:
    """The chart of these lines in a field of `width` by `height` pixels; `empty` is said where there is no point.

    Parameters
    ----------
    scale:
        Of texts and margins, on screens with small dots.
    """
    series = [one for one in series[:SERIES_COLOURS] if one.points]
    left, right, top, bottom = _LEFT * scale, _RIGHT * scale, _TOP * scale, _BOTTOM * scale
    if not series or width < left + right + 20 or height < top + bottom + 20:
        return Drawing(labels=(Label(width / 2, height / 2, empty, "centre"),))
    x0, x1 = _span([point[0] for one in series for point in one.points])
    y0, y1 = _span([point[1] for one in series for point in one.points], least=_least(series))
    y_ticks = _ticks(y0, y1)
    y0, y1 = min(y0, y_ticks[0]), max(y1, y_ticks[-1])

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = left + (point[0] - x0) / (x1 - x0) * (width - left - right)
        y = height - bottom - (point[1] - y0) / (y1 - y0) * (height - top - bottom)
        return round(x, 1), round(y, 1)

    strokes, labels = [], []
    for value in y_ticks:
        y = place((x0, value))[1]
        strokes.append(Stroke((left, y, width - right, y), "grid"))
        labels.append(Label(left - 6 * scale, y, _number(value, y_ticks[1] - y_ticks[0]), "right"))
    for seconds in _time_ticks(x0, x1, (width - left - right) / scale):
        x = place((seconds, y0))[0]
        strokes.append(Stroke((x, height - bottom, x, height - bottom + 4 * scale), "axis"))
        labels.append(Label(x, height - bottom / 2 + 2 * scale, _clock(seconds, x1), "centre"))
    strokes.append(Stroke((left, height - bottom, width - right, height - bottom), "axis"))
    legend_x = left
    for number, one in enumerate(series):
        points = [place(point) for point in one.points]
        if len(points) == 1:
            ((x, y),) = points
            points = [(x - _DOT, y), (x + _DOT, y)]
        colour = f"series{number}"
        strokes.append(Stroke(tuple(part for point in points for part in point), colour, number, 2.0 * scale))
        name = f"{line(one.name)}: {_value(one.points[-1][1])}{f' {one.unit}' if one.unit else ''}"
        strokes.append(Stroke((legend_x, top / 2, legend_x + 22 * scale, top / 2), colour, number, 2.0 * scale))
        labels.append(Label(legend_x + 28 * scale, top / 2, name, "left", "text"))
        legend_x += (28 + 7.5 * len(name) + 18) * scale
    return Drawing(tuple(strokes), tuple(labels))


def _least(series: Sequence[Series]) -> float | None:
    """0 for what is counted or measured upwards from nothing; a loss has no such ground."""
    return 0.0 if all(one.unit for one in series) and all(p[1] >= 0 for one in series for p in one.points) else None


def _span(values: Sequence[float], least: float | None = None) -> tuple[float, float]:
    """From the smallest to the largest value, never nothing."""
    low, high = min(values), max(values)
    if least is not None:
        low = least
    if high - low <= abs(high) * 1e-6 or high - low < 1e-12:
        widening = abs(high) * 0.1 or 1.0
        return (low - (0 if least is not None else widening)), high + widening
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, from the last before `low` to the first after `high`."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _time_ticks(low: float, high: float, width: float) -> list[float]:
    wanted = max(2, min(7, int(width / 90)))
    step = next((step for step in _SECONDS_STEPS if (high - low) / step <= wanted), (high - low) / wanted)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, int(high / step + 1e-9) + 1)]


def _clock(seconds: float, longest: float) -> str:
    if longest < 120:
        return f"{seconds:.0f} s"
    if longest < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def _number(value: float, step: float) -> str:
    """A tick, with as many digits as tell it from the next."""
    if abs(value) >= 1e6:
        return f"{value:.2g}"
    digits = next((digits for digits in range(9) if abs(step * 10**digits - round(step * 10**digits)) < 1e-6), 8)
    return f"{value:,.{digits}f}"


def _value(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
