"""A chart's lines stay within their field, its ticks are round, and what cannot be drawn is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.ui.charts import Series
from wan_fixes.ui.plot import Drawing, draw

WIDTH, HEIGHT = 640.0, 300.0
numbers = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)
moments = st.floats(min_value=0, max_value=1e7, allow_nan=False)


def ticks(drawing: Drawing, anchor: str) -> list[str]:
    return [label.text for label in drawing.labels if label.anchor == anchor]


def lines(drawing: Drawing) -> list[tuple[float, ...]]:
    return [stroke.points for stroke in drawing.strokes if stroke.colour.startswith("series")]


@given(st.lists(st.lists(st.tuples(moments, numbers), max_size=8), max_size=6))
def test_every_line_stays_within_its_field(series: list[list[tuple[float, float]]]) -> None:
    drawing = draw([Series("a", "MB", tuple(sorted(points))) for points in series], WIDTH, HEIGHT, empty="nothing")

    for points in lines(drawing):
        assert all(-4 <= x <= WIDTH + 400 for x in points[::2])  # a legend may be longer than the field is wide
        assert all(-1 <= y <= HEIGHT + 1 for y in points[1::2])
    assert drawing.labels


def test_ticks_are_round_and_hold_the_line() -> None:
    drawing = draw([Series("steps", "per second", ((0, 0.0), (90, 2.3)))], WIDTH, HEIGHT)

    assert ticks(drawing, "right") == ["0", "1", "2", "3"]
    assert [text for text in ticks(drawing, "centre") if text] == [
        "0 s",
        "15 s",
        "30 s",
        "45 s",
        "60 s",
        "75 s",
        "90 s",
    ]


def test_a_loss_need_not_begin_at_nothing_and_what_is_counted_does() -> None:
    points = ((0.0, 100.0), (10.0, 101.0))
    loss = draw([Series("loss", "", points)], WIDTH, HEIGHT)
    memory = draw([Series("memory", "MB", points)], WIDTH, HEIGHT)

    assert min(float(text) for text in ticks(loss, "right")) > 90
    assert min(float(text) for text in ticks(memory, "right")) == 0


def test_a_single_point_is_seen() -> None:
    drawing = draw([Series("loss", "", ((5.0, 0.3),))], WIDTH, HEIGHT)

    curve = max(lines(drawing), key=lambda points: points[1])  # the other is the legend's, at the top
    assert curve[2] > curve[0]


@pytest.mark.parametrize("width", [1, 60, WIDTH])
def test_nothing_to_draw_is_said_in_any_size(width: float) -> None:
    assert ticks(draw([], width, HEIGHT, empty="nothing yet"), "centre") == ["nothing yet"]


def test_lines_differ_by_more_than_their_colour() -> None:
    drawing = draw([Series(str(n), "", ((0, n), (1, n + 1))) for n in range(4)], WIDTH, HEIGHT)

    assert {stroke.dash for stroke in drawing.strokes if stroke.colour.startswith("series")} == {0, 1, 2, 3}


def test_names_of_lines_are_text() -> None:
    drawing = draw([Series("a\nb\u202e", "", ((0, 1), (1, 2)))], WIDTH, HEIGHT)

    assert any(label.text.startswith("a\\nb\\u202e: 2") for label in drawing.labels)
