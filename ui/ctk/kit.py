"""The kit for customtkinter: see `wan_fixes.ui.kit.Kit`, whose methods these are."""

from __future__ import annotations

import tkinter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import customtkinter as ctk
from customtkinter.windows.widgets.scaling import ScalingTracker

from wan_fixes.ui.ctk.chart import CtkChart
from wan_fixes.ui.ctk.focus import focus, make_reachable, set_enabled
from wan_fixes.ui.ctk.table import CtkTable
from wan_fixes.ui.kit import Shown, Size
from wan_fixes.ui.theme import DARK, LIGHT

_SIZES: dict[Size, int] = {"small": 12, "normal": 13, "large": 15, "huge": 21}
_NARROW = 200  # pixels: a text that wraps asks for no more, and takes what its column has
_CARD = ("gray91", "gray23")  # stands out from every frame of the theme
_TALL = 34  # pixels, as a button with the room around it
_LINE = 20  # pixels that a line of text is high


class _Button:
    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self._enabled = Shown(lambda is_enabled: set_enabled(widget, is_enabled))
        self.enable = self._enabled.set


class _Progress:
    def __init__(self, widget: Any) -> None:
        self._widget = widget
        self._hidden = Shown(lambda hidden: widget.grid_remove() if hidden else widget.grid())
        self._fraction = Shown(widget.set)
        self.set(None)

    def set(self, fraction: float | None) -> None:
        self._hidden.set(fraction is None)
        if fraction is not None:
            self._fraction.set(round(min(1.0, max(0.0, fraction)), 3))


class _Lines:
    def __init__(self, widget: Any, follows: bool) -> None:
        self._widget = widget
        self._follows = follows
        self._text = Shown(self._show)
        self.set = self._text.set

    def _show(self, text: str) -> None:
        at_end = self._follows and self._widget.yview()[1] >= 0.999
        first = self._widget.yview()[0] if self._follows else 0.0
        self._widget.configure(state="normal")
        self._widget.delete("1.0", "end")
        self._widget.insert("1.0", text)
        self._widget.configure(state="disabled")
        self._widget.yview_moveto(1.0 if at_end else first)


class _PageBar:
    def __init__(self, parent: Any, names: Sequence[str], command: Callable[[int], None]) -> None:
        self._command = command
        self._buttons = []
        theme = ctk.ThemeManager.theme["CTkSegmentedButton"]
        self._colours = {True: theme["selected_color"], False: "transparent"}
        self._hover = {True: theme["selected_hover_color"], False: theme["unselected_hover_color"]}
        self._texts = {True: theme["text_color"], False: (LIGHT["text"], DARK["text"])}
        for number, name in enumerate(names):
            button = ctk.CTkButton(parent, text=name, width=84, height=28, command=partial(self.choose, number))
            button.grid(row=0, column=number, padx=3, pady=3)
            make_reachable(button)
            self._on_arrow(button, "<Right>", number + 1)
            self._on_arrow(button, "<Left>", number - 1)
            self._buttons.append(button)

    def choose(self, number: int) -> None:
        for at, button in enumerate(self._buttons):
            is_chosen = at == number
            button.configure(
                fg_color=self._colours[is_chosen],
                hover_color=self._hover[is_chosen],
                text_color=self._texts[is_chosen],
            )
        self._command(number)

    def _on_arrow(self, button: Any, key: str, number: int) -> None:
        tkinter.Misc.bind(button, key, lambda _event: self._go(number))

    def _go(self, number: int) -> None:
        at = number % len(self._buttons)
        focus(self._buttons[at])
        self.choose(at)


class CtkKit:
    """customtkinter's widgets, OneTrainer's where it has them."""

    def __init__(self, components: Any, frame: Any) -> None:
        self.components = components
        self._root = frame

    def box(self, parent: Any, row: int, column: int, *, framed: bool = False, span: int = 1) -> Any:
        frame = ctk.CTkFrame(parent, corner_radius=6, fg_color=_CARD if framed else "transparent")
        pad = 4 if framed else 0
        frame.grid(row=row, column=column, columnspan=span, sticky="nsew", padx=pad, pady=pad)
        return frame

    def scrolling(self, parent: Any, row: int, column: int) -> Any:
        frame = ctk.CTkScrollableFrame(parent, fg_color="transparent")
        frame.grid(row=row, column=column, sticky="nsew")
        return frame

    def grow(
        self, box: Any, *, rows: Mapping[int, int] | None = None, columns: Mapping[int, int] | None = None
    ) -> None:
        for row, weight in (rows or {}).items():
            box.grid_rowconfigure(row, weight=weight)
        for column, weight in (columns or {}).items():
            box.grid_columnconfigure(column, weight=weight, uniform="shares")  # whatever they hold

    def hide(self, box: Any, hidden: bool) -> None:
        if hidden:
            box.grid_remove()
        else:
            box.grid()

    def text(
        self,
        parent: Any,
        row: int,
        column: int,
        *,
        size: Size = "normal",
        bold: bool = False,
        wrap: bool = False,
        vanishing: bool = False,
        tall: bool = False,
        steady: bool = False,  # noqa: ARG002 - laying out anew costs little here
    ) -> Shown:
        font = ctk.CTkFont(size=_SIZES[size], weight="bold" if bold else "normal")
        height = _TALL if tall else round(_SIZES[size] * 1.5)
        label = ctk.CTkLabel(parent, text="", font=font, height=height, anchor="w", justify="left")
        label.grid(row=row, column=column, sticky="ew", padx=8, pady=1)
        if wrap:
            label.configure(wraplength=_NARROW)
            width = Shown(lambda pixels: label.configure(wraplength=pixels))
            tkinter.Misc.bind(
                label,
                "<Configure>",
                lambda event: width.set(max(_NARROW, int(event.width / ScalingTracker.get_widget_scaling(label)) - 4)),
                add="+",
            )
        hidden = Shown(lambda is_hidden: label.grid_remove() if is_hidden else label.grid())
        said = Shown(lambda text: label.configure(text=text))
        coloured = Shown(lambda tone: label.configure(text_color=(LIGHT[tone], DARK[tone])))

        def show(text: str, tone: str = "text") -> None:
            if vanishing:
                hidden.set(not text)
            said.set(text)
            coloured.set(tone)

        return Shown(show)

    def button(self, parent: Any, row: int, column: int, text: str, command: Callable[[], None]) -> _Button:
        widget = self.components.button(parent, row, column, text, command)
        widget.grid(padx=4, pady=4)
        make_reachable(widget)
        return _Button(widget)

    def choice(
        self, parent: Any, row: int, column: int, options: Mapping[str, str], command: Callable[[str], None]
    ) -> None:
        state = self.components.state({"value": next(iter(options))})
        pairs = [(text, value) for value, text in options.items()]
        widget = self.components.options_kv(parent, row, column, pairs, state, "value", command=command)
        widget.grid(padx=4, pady=4)
        make_reachable(widget)

    def entry(self, parent: Any, row: int, column: int, command: Callable[[str], None]) -> Any:
        variable = tkinter.StringVar(parent)
        widget = ctk.CTkEntry(parent, textvariable=variable, height=28)
        widget.grid(row=row, column=column, sticky="ew", padx=4, pady=4)
        variable.trace_add("write", lambda *_: command(variable.get()))
        make_reachable(widget, inner=widget._entry)
        return widget

    def progress(self, parent: Any, row: int, column: int) -> _Progress:
        widget = ctk.CTkProgressBar(parent, height=10)
        widget.grid(row=row, column=column, sticky="ew", padx=8, pady=6)
        return _Progress(widget)

    def table(
        self,
        parent: Any,
        row: int,
        column: int,
        columns: Sequence[tuple[str, int, bool]],
        *,
        lines: int,
        on_choose: Callable[[], None] = lambda: None,
        on_copy: Callable[[], None] | None = None,
    ) -> CtkTable:
        table = CtkTable(parent, columns, lines, on_choose, on_copy)
        table.frame.grid(row=row, column=column, sticky="nsew", padx=4, pady=4)
        return table

    def chart(self, parent: Any, row: int, column: int) -> CtkChart:
        return CtkChart(parent, row, column)

    def lines(self, parent: Any, row: int, column: int, *, lines: int, follows: bool = False) -> _Lines:
        widget = ctk.CTkTextbox(parent, height=lines * _LINE + 12, wrap="word", state="disabled", border_width=0)
        widget.grid(row=row, column=column, sticky="nsew", padx=4, pady=4)
        make_reachable(widget, inner=widget._textbox)
        return _Lines(widget, follows)

    def page_bar(
        self, parent: Any, row: int, column: int, names: Sequence[str], command: Callable[[int], None]
    ) -> _PageBar:
        frame = ctk.CTkFrame(parent, corner_radius=6)
        frame.grid(row=row, column=column, sticky="w", padx=4, pady=(0, 2))
        return _PageBar(frame, names, command)

    def reachable(self, widget: Any) -> None:
        make_reachable(widget)

    def on_key(self, box: Any, key: str, command: Callable[[], None]) -> None:
        def pressed(_event: Any) -> None:
            if self.is_in_view(box):
                command()

        tkinter.Misc.bind(box.winfo_toplevel(), f"<{key}>", pressed, add="+")

    def copy(self, text: str) -> None:
        self._root.clipboard_clear()
        self._root.clipboard_append(text)

    def is_in_view(self, box: Any) -> bool:
        return bool(box.winfo_viewable())

    def every(self, box: Any, milliseconds: int, command: Callable[[], None], ended: Callable[[], None]) -> None:
        waiting = ""

        def tick() -> None:
            nonlocal waiting
            waiting = box.after(milliseconds, tick)
            command()

        def destroyed(event: Any) -> None:
            if event.widget is box:
                box.after_cancel(waiting)
                ended()

        tkinter.Misc.bind(box, "<Destroy>", destroyed, add="+")
        waiting = box.after(0, tick)
