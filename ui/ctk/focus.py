"""Keys for customtkinter's widgets, which by themselves are for the mouse: focus, a ring around it, what presses."""

from __future__ import annotations

import tkinter
from collections.abc import Callable
from typing import Any

import customtkinter as ctk

from wan_fixes.ui.theme import colours

_RING = 2  # pixels
_DISABLED, _DISABLED_TEXT = ("gray75", "gray28"), ("gray45", "gray58")
_PRESS = ("<space>", "<Return>", "<KP_Enter>")


def make_reachable(widget: Any, *, inner: Any = None) -> None:
    """Let a button, switch or menu be reached by Tab and used by Space, Enter and the arrows.

    `inner` is the part of a widget that has the focus already, where there is one: it gets the ring alone.
    """
    focused = inner or widget
    tkinter.Frame.configure(focused, takefocus=True)  # Tab would pass by a text that cannot be changed
    if inner is None:
        for key in _PRESS:
            _on(widget, key, lambda _event: _press(widget))
        if isinstance(widget, ctk.CTkOptionMenu):
            _on(widget, "<Down>", lambda _event: _step(widget, 1))
            _on(widget, "<Up>", lambda _event: _step(widget, -1))
    _on(focused, "<FocusIn>", lambda _event: _show_ring(widget), goes_on=True)
    _on(focused, "<FocusOut>", lambda _event: _hide_ring(widget), goes_on=True)


def focus(widget: Any) -> None:
    """Give the keys to a widget that `make_reachable` has seen."""
    tkinter.Misc.focus_set(widget)


def set_enabled(widget: Any, is_enabled: bool) -> None:
    """Enable a button or disable it; while disabled, Tab passes it by."""
    colour = ctk.ThemeManager.theme["CTkButton"]["fg_color"] if is_enabled else _DISABLED
    widget.configure(state="normal" if is_enabled else "disabled", fg_color=colour, text_color_disabled=_DISABLED_TEXT)
    tkinter.Frame.configure(widget, takefocus=is_enabled)


def _on(widget: Any, key: str, function: Callable[[Any], None], *, goes_on: bool = False) -> None:
    def call(event: Any) -> str | None:
        function(event)
        return None if goes_on else "break"

    tkinter.Misc.bind(widget, key, call, add="+")


def _press(widget: Any) -> None:
    if isinstance(widget, ctk.CTkSwitch):
        widget.toggle()
    elif isinstance(widget, ctk.CTkOptionMenu):
        widget._open_dropdown_menu()
    elif widget.cget("state") != "disabled":
        widget.invoke()


def _step(menu: Any, by: int) -> None:
    """Choose the entry of a menu that is so many further on."""
    values = menu.cget("values")
    at = values.index(menu.get()) + by if menu.get() in values else 0
    if 0 <= at < len(values):
        menu._dropdown_callback(values[at])


def _show_ring(widget: Any) -> None:
    _hide_ring(widget)
    ring = tkinter.Frame(widget.master, background=colours(dark=ctk.get_appearance_mode() == "Dark")["ring"])
    ring.place(
        in_=widget, bordermode="outside", x=-_RING, y=-_RING, relwidth=1, width=2 * _RING, relheight=1, height=2 * _RING
    )
    ring.lower(widget)
    widget._wan_fixes_ring = ring
    _scroll_to(widget)


def _hide_ring(widget: Any) -> None:
    ring = getattr(widget, "_wan_fixes_ring", None)
    if ring is not None:
        widget._wan_fixes_ring = None
        ring.destroy()


def _scroll_to(widget: Any) -> None:
    """Bring a widget into sight that lies in a box that scrolls."""
    around = widget.master
    while around is not None and not isinstance(around, ctk.CTkScrollableFrame):
        around = around.master
    if around is None:
        return
    canvas = around._parent_canvas
    top = widget.winfo_rooty() - around.winfo_rooty()
    seen, height, total = canvas.canvasy(0), canvas.winfo_height(), max(1, around.winfo_height())
    if top < seen:
        canvas.yview_moveto(max(0, top - 20) / total)
    elif top + widget.winfo_height() > seen + height:
        canvas.yview_moveto((top + widget.winfo_height() + 20 - height) / total)
