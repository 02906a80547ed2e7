"""Draws a data flow as SVG: boxes for modules, arrows with the items' names, red for what was left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from wan_fixes.health.html_page import text_of
from wan_fixes.ui.flow import Flow, FlowEdge, FlowNode
from wan_fixes.ui.flow_layout import Arrow, Box, Layout, Point, lay_out

_MARGIN: Final = 12.0
_NAME_WIDTH, _WORDS_WIDTH, _LABEL_WIDTH = 8.5, 6.5, 6.0  # pixels of a character, on the wide side
_LINE_HEIGHT: Final = 15.0
_LONGEST_NAME: Final = 40  # characters
_LEGEND_HEIGHT: Final = 26.0
_LEFT_OUT: Final = -1  # the keys of boxes that are no modules go down from here

_CLASSES: Final = {"validated": "validated", "guarded": "guarded", "as it was": "asitwas"}

_STYLE: Final = """
.flow { font: 11px "Segoe UI", system-ui, -apple-system, "DejaVu Sans", sans-serif; }
.flow .paper { fill: #ffffff; } .flow text { fill: #333333; }
.flow .name { font-size: 13px; font-weight: 600; fill: #111111; }
.flow rect.box { stroke-width: 1.2; }
.flow .validated { fill: #e3f5e8; stroke: #1b6e3c; } .flow .guarded { fill: #e4edfc; stroke: #2f5fb3; }
.flow .asitwas { fill: #f2f2f2; stroke: #8a8a8a; } .flow .leftout { fill: #fdeceb; stroke: #b3261e; }
.flow .time { fill: #e69f00; stroke: none; } .flow text.trouble { fill: #b3261e; font-weight: 600; }
.flow path { fill: none; stroke: #6b7785; } .flow path.dashed { stroke-dasharray: 4 3; }
.flow path.dropped { stroke: #b3261e; stroke-dasharray: 4 3; }
.flow path.head { fill: #6b7785; stroke: none; } .flow path.head.dropped { fill: #b3261e; }
.flow .label { fill: #4a5563; paint-order: stroke; stroke: #ffffff; stroke-width: 5px; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) {
  .flow .paper { fill: #1b1b1b; } .flow text { fill: #cccccc; } .flow .name { fill: #f2f2f2; }
  .flow .validated { fill: #17331f; stroke: #6fc98f; } .flow .guarded { fill: #1a2a45; stroke: #7ba6ee; }
  .flow .asitwas { fill: #2a2a2a; stroke: #8a8a8a; } .flow .leftout { fill: #3d1c1a; stroke: #ff8a80; }
  .flow text.trouble { fill: #ff8a80; } .flow path { stroke: #93a0b0; } .flow path.dropped { stroke: #ff8a80; }
  .flow path.head { fill: #93a0b0; } .flow path.head.dropped { fill: #ff8a80; }
  .flow .label { fill: #b4bfcc; stroke: #1b1b1b; }
}
"""


def flow_svg(flow: Flow, title: str) -> str:
    """The picture, by itself or within a page. All texts are escaped, and nothing outside of it is needed."""
    lines = {node.at: _lines(node) for node in flow.nodes}
    boxes = [Box(node.at, _width(lines[node.at]), _height(lines[node.at])) for node in flow.nodes]
    arrows = [Arrow(edge.source, edge.target, _LABEL_WIDTH * len(edge.label) + 4) for edge in flow.edges]
    dropped = {_LEFT_OUT - number: _dropped_lines(*part) for number, part in enumerate(flow.elsewhere)}
    boxes += [Box(key, _width(texts), _height(texts)) for key, texts in dropped.items()]
    if flow.collector is not None:
        arrows += [Arrow(flow.collector, key, 4) for key in dropped]
    layout = lay_out(boxes, arrows)
    sizes = {box.key: box for box in boxes}
    drawn = [
        *(
            _arrow(points, _edge_class(flow, number), _edge_width(flow, number))
            for number, points in enumerate(layout.routes)
        ),
        *(_label(edge, at) for edge, at in zip(flow.edges, layout.labels, strict=False)),
        *(_node(node, lines[node.at], sizes[node.at], layout.boxes[node.at]) for node in flow.nodes),
        *(_box("leftout", texts, sizes[key], layout.boxes[key]) for key, texts in dropped.items()),
    ]
    return _framed(title, layout, drawn)


def _framed(title: str, layout: Layout, drawn: Sequence[str]) -> str:
    legend, legend_width = _legend()
    width = max(layout.width, legend_width) + 2 * _MARGIN
    height = layout.height + 2 * _MARGIN + _LEGEND_HEIGHT
    shift = (width - layout.width) / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flow" role="img" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n<title>{text_of(title)}</title>\n<style>{_STYLE}</style>\n'
        f'<rect class="paper" width="100%" height="100%"/>\n{legend}'
        f'<g transform="translate({shift:.1f} {_MARGIN + _LEGEND_HEIGHT:.1f})">\n{"".join(drawn)}</g>\n</svg>\n'
    )


def _legend() -> tuple[str, float]:
    """What the colours mean, in one line, and how wide it is."""
    x, parts = _MARGIN, []
    for kind, words in (
        ("validated", "validated: a module of this plugin"),
        ("guarded", "guarded: the host's own, watched"),
        ("asitwas", "as it was"),
        ("leftout", "left out"),
        ("time", "share of the time of all modules"),
    ):
        parts.append(
            f'<rect class="box {kind}" x="{x:.0f}" y="10" width="12" height="12" rx="2"/>'
            f'<text x="{x + 17:.0f}" y="20">{words}</text>\n'
        )
        x += 17 + _WORDS_WIDTH * len(words) + 18
    return "".join(parts), x


def _lines(node: FlowNode) -> list[tuple[str, str]]:
    """The lines of a module's box: class and text."""
    name = node.name if len(node.name) <= _LONGEST_NAME else node.name[: _LONGEST_NAME - 1] + "…"
    words = " · ".join(filter(None, [node.part, node.work]))
    lines = [("name", name), ("words", words), ("words", node.facts), ("trouble", node.trouble)]
    return [(kind, text) for kind, text in lines if text]


def _dropped_lines(module: str, count: int) -> list[tuple[str, str]]:
    return [("trouble", f"{count:,} left out"), ("words", module[:_LONGEST_NAME])]


def _width(lines: Sequence[tuple[str, str]]) -> float:
    return 20 + max(len(text) * (_NAME_WIDTH if kind == "name" else _WORDS_WIDTH) for kind, text in lines)


def _height(lines: Sequence[tuple[str, str]]) -> float:
    return 16 + _LINE_HEIGHT * len(lines)


def _node(node: FlowNode, lines: Sequence[tuple[str, str]], box: Box, at: Point) -> str:
    """A module's box, with a bar for its share of the time, and all its items in the tooltip."""
    tooltip = f"{node.name} ({node.at})"
    for what, names in (("reads", node.reads), ("of the settings", node.settings), ("gives", node.gives)):
        if names:
            tooltip += f"; {what} {', '.join(names)}"
    bar = ""
    if node.share >= 0.005:
        x, y, width = at[0] - box.width / 2 + 8, at[1] + box.height / 2 - 7, (box.width - 16) * min(1.0, node.share)
        bar = f'<rect class="time" x="{x:.1f}" y="{y:.1f}" width="{max(2.0, width):.1f}" height="3" rx="1.5"/>'
    return _box(_CLASSES[node.part], lines, box, at, tooltip=tooltip, more=bar)


def _box(kind: str, lines: Sequence[tuple[str, str]], box: Box, at: Point, *, tooltip: str = "", more: str = "") -> str:
    x, y = at[0] - box.width / 2, at[1] - box.height / 2
    title = f"<title>{text_of(tooltip)}</title>" if tooltip else ""
    texts = "".join(
        f'<text class="{name}" x="{at[0]:.1f}" y="{y + 18 + _LINE_HEIGHT * number:.1f}" text-anchor="middle">'
        f"{text_of(text)}</text>"
        for number, (name, text) in enumerate(lines)
    )
    return (
        f'<g>{title}<rect class="box {kind}" x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="6"/>{texts}{more}</g>\n'
    )


def _edge_class(flow: Flow, number: int) -> str:
    if number >= len(flow.edges):
        return "dropped"
    edge = flow.edges[number]
    return "dashed" if edge.is_fallback or edge.is_settings else ""


def _edge_width(flow: Flow, number: int) -> float:
    """The more items its source gave, the wider: one pixel more for ten times as many."""
    if number >= len(flow.edges):
        return 1.2
    items = next(node.items for node in flow.nodes if node.at == flow.edges[number].source)
    return min(5.0, 1.0 + 0.7 * math.log10(1 + items))


def _arrow(points: Sequence[Point], kind: str, width: float) -> str:
    """A line that is smooth between layers, and its head."""
    (x, y), *rest = points
    head = 4.0 + width
    end_x, end_y = rest[-1]
    rest = [*rest[:-1], (end_x, end_y - head)]
    path = f"M{x:.1f} {y:.1f}"
    for next_x, next_y in rest:
        if abs(next_x - x) < 0.5:
            path += f"L{next_x:.1f} {next_y:.1f}"
        else:
            bend = (y + next_y) / 2
            path += f"C{x:.1f} {bend:.1f} {next_x:.1f} {bend:.1f} {next_x:.1f} {next_y:.1f}"
        x, y = next_x, next_y
    half = head * 0.6
    tip = f"M{end_x:.1f} {end_y:.1f}l{-half:.1f} {-head:.1f}h{2 * half:.1f}z"
    return f'<path class="{kind}" stroke-width="{width:.1f}" d="{path}"/><path class="head {kind}" d="{tip}"/>\n'


def _label(edge: FlowEdge, at: Point) -> str:
    title = f"<title>{text_of(', '.join(edge.items))}</title>" if len(edge.items) > 1 else ""
    x, y = at
    return f'<text class="label" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{title}{text_of(edge.label)}</text>\n'
