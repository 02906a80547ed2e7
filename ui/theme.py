"""Colours of what the toolkits' own widgets have no colour for: tones of text, and the lines of a chart."""

from __future__ import annotations

from typing import Final, Literal

Tone = Literal["text", "dim", "bad", "warn", "good"]
Colours = dict[str, str]

LIGHT: Final[Colours] = {
    "text": "#1a1a1a",
    "dim": "#4f565d",
    "bad": "#a61b13",
    "warn": "#7a4b00",
    "good": "#14602f",
    "grid": "#c4c8cc",
    "axis": "#8a9197",
    "ring": "#0b57a4",
    "field": "#f9f9fa",
    "chosen": "#1f6aa5",
    "chosen_text": "#ffffff",
    "series0": "#1f6aa5",
    "series1": "#b3470a",
    "series2": "#6a3fb5",
    "series3": "#14602f",
}
DARK: Final[Colours] = {
    "text": "#dce4ee",
    "dim": "#a9b3bf",
    "bad": "#ff8f86",
    "warn": "#ffc861",
    "good": "#7fd99d",
    "grid": "#3d4146",
    "axis": "#6b7279",
    "ring": "#8cc8ff",
    "field": "#242628",
    "chosen": "#1f6aa5",
    "chosen_text": "#ffffff",
    "series0": "#5fb0ee",
    "series1": "#f5a55c",
    "series2": "#bda4ff",
    "series3": "#7fd99d",
}
SERIES_COLOURS: Final = 4
DASHES: Final = ((), (7, 4), (2, 3), (9, 3, 2, 3))
"""So that lines differ without their colours too: dots drawn and left out, in pixels."""


def colours(*, dark: bool) -> Colours:
    """The colours for a dark or a light window."""
    return DARK if dark else LIGHT
