"""A chart on tkinter's canvas."""

from __future__ import annotations

import tkinter
from collections.abc import Sequence
from typing import Any

import customtkinter as ctk
from customtkinter.windows.widgets.appearance_mode import AppearanceModeTracker
from customtkinter.windows.widgets.scaling import ScalingTracker

from wan_fixes.ui.charts import Series
from wan_fixes.ui.plot import draw
from wan_fixes.ui.theme import DASHES, colours

_ANCHORS: dict[str, Any] = {"left": "w", "right": "e", "centre": "center"}
_FONT = 12  # pixels


class CtkChart:
    """See `wan_fixes.ui.kit.Chart`."""

    def __init__(self, parent: Any, row: int, column: int) -> None:
        self._parent = parent
        self._series: Sequence[Series] = ()
        self._empty = ""
        self.canvas = tkinter.Canvas(parent, highlightthickness=0, borderwidth=0, width=200, height=120)
        self.canvas.grid(row=row, column=column, sticky="nsew", padx=6, pady=6)
        self.canvas.bind("<Configure>", lambda _event: self._draw())
        AppearanceModeTracker.add(self._repaint)
        self.canvas.bind("<Destroy>", lambda _event: AppearanceModeTracker.remove(self._repaint))

    def show(self, series: Sequence[Series], empty: str) -> None:
        """See `wan_fixes.ui.kit.Chart`."""
        if (series, empty) != (self._series, self._empty):
            self._series, self._empty = series, empty
            self._draw()

    def _repaint(self, _mode: str) -> None:
        self._draw()

    def _draw(self) -> None:
        canvas, dark = self.canvas, ctk.get_appearance_mode() == "Dark"
        paint, scale = colours(dark=dark), ScalingTracker.get_widget_scaling(self._parent)
        canvas.configure(
            background=self._parent._apply_appearance_mode(self._parent._detect_color_of_master(self._parent))
        )
        canvas.delete("all")
        drawing = draw(self._series, canvas.winfo_width(), canvas.winfo_height(), scale=scale, empty=self._empty)
        for stroke in drawing.strokes:
            canvas.create_line(
                *stroke.points,
                fill=paint[stroke.colour],
                width=stroke.width,
                dash=DASHES[stroke.dash] or "",
                joinstyle="round",
                capstyle="butt",
            )
        font = ctk.ThemeManager.theme["CTkFont"]["family"], -round(_FONT * scale)
        for label in drawing.labels:
            canvas.create_text(
                label.x,
                label.y,
                text=label.text,
                anchor=_ANCHORS[label.anchor],
                fill=paint[label.colour],
                font=font,
            )
