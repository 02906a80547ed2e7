"""Charts as SVG, in the colours of the theme, for pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wan_fixes.health.html_page import text_of
from wan_fixes.ui.charts import Series
from wan_fixes.ui.plot import Drawing, Label, Stroke, draw
from wan_fixes.ui.theme import DARK, DASHES, LIGHT, Colours

_WIDTH: Final = 520
_WIDE: Final = 1060  # room for the names of several lines
_HEIGHT: Final = 200
_ANCHORS: Final = {"left": "start", "right": "end", "centre": "middle"}


def _rules(colours: Colours) -> str:
    return "".join(
        f".chart polyline.{name} {{ stroke: {value}; }} .chart text.{name} {{ fill: {value}; }}\n"
        for name, value in colours.items()
    )


CHART_STYLE: Final = (
    '.chart { font: 11px system-ui, "DejaVu Sans", sans-serif; } .chart polyline { fill: none; }\n'
    ".chart { max-width: 100%; height: auto; }\n"
    f"{_rules(LIGHT)}@media (prefers-color-scheme: dark) {{\n{_rules(DARK)}}}\n"
)
"""CSS that `chart_svg` needs on its page."""


def chart_svg(title: str, series: Sequence[Series]) -> str:
    """The chart of these lines; "" where there is nothing to draw."""
    if not any(one.points for one in series):
        return ""
    width = _WIDTH if len(series) == 1 else _WIDE
    drawing: Drawing = draw(series, width, _HEIGHT)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" width="{width}" height="{_HEIGHT}" '
        f'viewBox="0 0 {width} {_HEIGHT}"><title>{text_of(title)}</title>\n'
        f"{''.join(map(_stroke, drawing.strokes))}{''.join(map(_label, drawing.labels))}</svg>\n"
    )


def _stroke(stroke: Stroke) -> str:
    pairs = zip(stroke.points[::2], stroke.points[1::2], strict=True)
    points = " ".join(f"{x:g},{y:g}" for x, y in pairs)
    dash = f' stroke-dasharray="{" ".join(map(str, DASHES[stroke.dash]))}"' if DASHES[stroke.dash] else ""
    return f'<polyline class="{stroke.colour}" stroke-width="{stroke.width:g}"{dash} points="{points}"/>\n'


def _label(label: Label) -> str:
    return (
        f'<text class="{label.colour}" x="{label.x:g}" y="{label.y + 4:g}" text-anchor="{_ANCHORS[label.anchor]}">'
        f"{text_of(label.text)}</text>\n"
    )
