"""A table in customtkinter, which has none: tkinter's own, in the colours of the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from tkinter import ttk
from typing import Any

import customtkinter as ctk
from customtkinter.windows.widgets.appearance_mode import AppearanceModeTracker
from customtkinter.windows.widgets.scaling import ScalingTracker

from wan_fixes.ui.ctk.focus import make_reachable
from wan_fixes.ui.kit import Row, Shown
from wan_fixes.ui.theme import DARK, LIGHT, colours

_STYLE = "WanFixes.Treeview"
_ROW, _FONT = 26, 13  # pixels
_CHARACTER = 6.6  # pixels, about: what is longer than its column ends in "…"


class CtkTable:
    """See `wan_fixes.ui.kit.Table`."""

    def __init__(
        self,
        parent: Any,
        columns: Sequence[tuple[str, int, bool]],
        lines: int,
        on_choose: Callable[[], None],
        on_copy: Callable[[], None] | None,
    ) -> None:
        self._scale = ScalingTracker.get_widget_scaling(parent)
        self._columns = columns
        self._rows: dict[str, Row] = {}
        self._keys: list[str] = []
        self._shown: list[Row] = []
        self.frame = ctk.CTkFrame(parent, corner_radius=4, fg_color=(LIGHT["field"], DARK["field"]))
        self.frame.grid_rowconfigure(0, weight=1)
        self.frame.grid_columnconfigure(0, weight=1)
        _style(self._scale)
        names = [str(number) for number in range(len(columns))]
        self.tree = ttk.Treeview(
            self.frame, columns=names, show="headings", style=_STYLE, height=lines, selectmode="extended"
        )
        for name, (heading, width, grows) in zip(names, columns, strict=True):
            pixels = round(width * self._scale)
            self.tree.heading(name, text=heading, anchor="w")
            self.tree.column(name, width=pixels, minwidth=pixels // 2, stretch=grows, anchor="w")
        self.tree.grid(row=0, column=0, sticky="nsew", padx=(3, 0), pady=3)
        bar = ctk.CTkScrollbar(self.frame, command=self.tree.yview)
        bar.grid(row=0, column=1, sticky="ns", pady=3)

        # Its place stays: what comes and goes while a table is laid out is laid out wrongly.
        shown, hidden = ctk.ThemeManager.theme["CTkScrollbar"]["button_color"], self.frame.cget("fg_color")
        colour = Shown(lambda is_needed: bar.configure(button_color=shown if is_needed else hidden))

        def scrolled(first: float, last: float) -> None:
            bar.set(first, last)
            colour.set(float(first) > 0 or float(last) < 1)

        self.tree.configure(yscrollcommand=scrolled)
        make_reachable(self.frame, inner=self.tree)
        self.tree.bind("<<TreeviewSelect>>", lambda _event: on_choose())
        self.tree.bind("<FocusIn>", lambda _event: self._point_somewhere(), add="+")
        self.tree.bind("<Control-a>", lambda _event: self._choose_all())
        self.tree.bind("<Shift-Down>", lambda _event: self._extend(1))
        self.tree.bind("<Shift-Up>", lambda _event: self._extend(-1))
        self.tree.bind("<space>", lambda _event: self._toggle())
        if on_copy is not None:
            self.tree.bind("<Control-c>", lambda _event: on_copy())
        AppearanceModeTracker.add(self._repaint)
        self.tree.bind("<Destroy>", lambda _event: AppearanceModeTracker.remove(self._repaint))

    def show(self, rows: Sequence[Row]) -> None:
        """See `wan_fixes.ui.kit.Table`: only rows that are new, gone or different are touched."""
        if list(rows) == self._shown:
            return
        self._shown = list(rows)
        wanted = dict(rows)
        if gone := [key for key in self._keys if key not in wanted]:
            self.tree.delete(*(self._item(key) for key in gone))
            self._keys = [key for key in self._keys if key in wanted]
        there = set(self._keys)
        for at, (key, cells) in enumerate(rows):
            if key not in there:
                self.tree.insert("", at, iid=self._item(key), values=self._fitted(cells))
                self._keys.insert(at, key)
            else:
                if self._keys[at] != key:
                    self.tree.move(self._item(key), "", at)
                    self._keys.remove(key)
                    self._keys.insert(at, key)
                if self._rows[key][1] != cells:
                    self.tree.item(self._item(key), values=self._fitted(cells))
            self._rows[key] = (key, cells)
        self._rows = {key: self._rows[key] for key in self._keys}

    def chosen(self) -> list[str]:
        """See `wan_fixes.ui.kit.Table`."""
        chosen = set(self.tree.selection())
        if not chosen:
            return []
        return [key for key in self._keys if self._item(key) in chosen]

    def _item(self, key: str) -> str:
        # Tcl takes no surrogates, which a file's name may hold.
        return "row:" + key.encode("utf-8", "backslashreplace").decode("utf-8")

    def _fitted(self, cells: tuple[str, ...]) -> tuple[str, ...]:
        """The cells, the long ones of columns that do not grow cut: tkinter would cut through a letter."""
        fitted = []
        for text, (_, width, grows) in zip(cells, self._columns, strict=True):
            most = int((width - 12) / _CHARACTER)
            fitted.append(text if grows or len(text) <= most else f"{text[: most - 1]}…")
        return tuple(fitted)

    def _point_somewhere(self) -> None:
        """The arrows go on from a row: from the first, where there was none."""
        if not self.tree.focus() and self._keys:
            self.tree.focus(self._item(self._keys[0]))

    def _extend(self, by: int) -> str:
        """Choose the next row too."""
        rows, at = self.tree.get_children(), self.tree.focus()
        if at in rows:
            to = rows[max(0, min(len(rows) - 1, rows.index(at) + by))]
            self.tree.selection_add(at, to)
            self.tree.focus(to)
            self.tree.see(to)
        return "break"

    def _toggle(self) -> str:
        """Choose the row that the keys are at, or no longer."""
        if self.tree.focus():
            self.tree.selection_toggle(self.tree.focus())
        return "break"

    def _choose_all(self) -> str:
        self.tree.selection_set(self.tree.get_children())
        return "break"

    def _repaint(self, _mode: str) -> None:
        _style(self._scale)


def _style(scale: float) -> None:
    """The style of our tables; that of other people's is left alone, whatever the theme is."""
    style = ttk.Style()
    paint = colours(dark=ctk.get_appearance_mode() == "Dark")
    # Some themes draw fields and headings in colours of their own.
    for element in ("Treeview.field", "Treeheading.cell", "Treeheading.border"):
        name = f"WanFixes.{element}"
        if name not in style.element_names():
            style.element_create(name, "from", "default", element)
    style.layout(
        _STYLE,
        [("WanFixes.Treeview.field", {"sticky": "nswe", "children": [("Treeview.treearea", {"sticky": "nswe"})]})],
    )
    style.layout(
        f"{_STYLE}.Heading",
        [
            ("WanFixes.Treeheading.cell", {"sticky": "nswe"}),
            (
                "WanFixes.Treeheading.border",
                {
                    "sticky": "nswe",
                    "children": [
                        (
                            "Treeheading.padding",
                            {"sticky": "nswe", "children": [("Treeheading.text", {"sticky": "we"})]},
                        )
                    ],
                },
            ),
        ],
    )
    family = ctk.ThemeManager.theme["CTkFont"]["family"]
    size = -round(_FONT * scale)
    style.configure(
        _STYLE,
        background=paint["field"],
        fieldbackground=paint["field"],
        foreground=paint["text"],
        rowheight=round(_ROW * scale),
        font=(family, size),
        borderwidth=0,
        relief="flat",
    )
    style.map(_STYLE, background=[("selected", paint["chosen"])], foreground=[("selected", paint["chosen_text"])])
    frame = ctk.ThemeManager.theme["CTkFrame"]["top_fg_color"][1 if ctk.get_appearance_mode() == "Dark" else 0]
    style.configure(
        f"{_STYLE}.Heading",
        background=frame,
        foreground=paint["dim"],
        font=(family, size),
        relief="flat",
        borderwidth=0,
        padding=(4, 4),
    )
    style.map(f"{_STYLE}.Heading", background=[("active", frame)], relief=[("active", "flat")])
