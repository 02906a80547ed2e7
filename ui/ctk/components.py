"""Builders of widgets by OneTrainer's names, for our own window: the few that the pages use."""

from __future__ import annotations

import tkinter
from collections.abc import Callable, Sequence
from typing import Any

import customtkinter as ctk

_PAD = 10  # pixels, as in OneTrainer


class State:
    """The entries of a dictionary as tkinter's variables, which set them."""

    def __init__(self, master: Any, values: dict[str, Any]) -> None:
        self._variables = {name: _variable(master, values, name) for name in values}

    def get_var(self, name: str) -> Any:
        """The variable of an entry."""
        return self._variables[name]


class Components:
    """As `wan_fixes.hosts.onetrainer.widgets.Widgets` inside OneTrainer.

    Parameters
    ----------
    window:
        What the variables belong to.
    """

    def __init__(self, window: Any) -> None:
        self._window = window

    def state(self, values: dict[str, Any]) -> State:
        """What widgets take as `ui_state`."""
        return State(self._window, values)

    def label(self, master: Any, row: int, column: int, text: str) -> Any:
        """A label."""
        widget = ctk.CTkLabel(master, text=text, justify="left")
        widget.grid(row=row, column=column, padx=_PAD, pady=_PAD, sticky="nw")
        return widget

    def button(self, master: Any, row: int, column: int, text: str, command: Callable[[], None]) -> Any:
        """A button."""
        widget = ctk.CTkButton(master, text=text, command=command)
        widget.grid(row=row, column=column, padx=_PAD, pady=_PAD, sticky="new")
        return widget

    def switch(self, master: Any, row: int, column: int, state: State, name: str, command: Callable[[], None]) -> Any:
        """A switch for an entry of the state."""
        widget = ctk.CTkSwitch(master, variable=state.get_var(name), text="", command=command)
        widget.grid(row=row, column=column, padx=_PAD, pady=_PAD, sticky="new")
        return widget

    def options_kv(
        self,
        master: Any,
        row: int,
        column: int,
        values: Sequence[tuple[str, Any]],
        state: State,
        name: str,
        command: Callable[[Any], None],
    ) -> Any:
        """A menu of (text, value) for an entry of the state; `command` gets the value, and at once the present one."""
        variable = state.get_var(name)
        by_text = dict(values)

        def choose(text: str) -> None:
            variable.set(by_text[text])
            command(by_text[text])

        widget = ctk.CTkOptionMenu(master, values=list(by_text), command=choose)
        widget.grid(row=row, column=column, padx=_PAD, pady=_PAD, sticky="new")
        text = next((text for text, value in values if value == variable.get()), values[0][0])
        widget.set(text)
        choose(text)
        return widget


def _variable(master: Any, values: dict[str, Any], name: str) -> Any:
    is_switch = isinstance(values[name], bool)
    variable = (tkinter.BooleanVar if is_switch else tkinter.StringVar)(master, values[name])
    variable.trace_add("write", lambda *_: values.__setitem__(name, variable.get()))
    return variable
