"""OneTrainer's builders of widgets as the tabs of plugins get them: the same for both toolkits and older windows."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


class Widgets:
    """Everything of OneTrainer's components module under its own name: `label`, `entry`, `switch`, `options_kv`, …

    Parameters
    ----------
    components:
        The components module of the window's toolkit.
    view:
        The window.
    """

    def __init__(self, components: ModuleType, view: Any) -> None:
        self._components = components
        self._view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._components, name)

    def state(self, values: dict[str, Any]) -> Any:
        """What widgets take as `ui_state`: they show the entries of `values` (str, bool, int, float), and set them."""
        window_state = self._view.ui_state
        if hasattr(window_state, "_make_nested_state"):
            return window_state._make_nested_state(values)
        return type(window_state)(self._view, values)  # before the window came in two toolkits

    def config(self) -> dict[str, Any] | None:
        """The window's configuration as it is now, as plain JSON types and without secrets; None where it has none.

        Safe to call from any thread.
        """
        from wan_fixes.hosts.onetrainer.training import plain_config

        config = self._train_config()
        return None if config is None else plain_config(config)

    def model_types(self) -> frozenset[str]:
        """The names of the model types that this OneTrainer has."""
        from wan_fixes.hosts.onetrainer.configuration import model_types

        return model_types()

    def workspace_dir(self) -> str:
        """The workspace that the window names now; "" where it names none. Safe to call from any thread, and quick."""
        return str(getattr(self._train_config(), "workspace_dir", None) or "")

    def _train_config(self) -> Any:
        # Of the controller, or of the window itself before it had one.
        return getattr(getattr(self._view, "controller", self._view), "train_config", None)

    def label(self, *arguments: Any, **options: Any) -> Any:
        """OneTrainer's label, whose text is never markup: Qt would guess."""
        component = self._components.label(*arguments, **options)
        if hasattr(component, "setTextFormat"):
            from PySide6.QtCore import Qt

            component.setTextFormat(Qt.TextFormat.PlainText)
        else:
            component.configure(justify="left")  # customtkinter centres the lines of a text
        return component

    def set_label_text(self, label: Any, text: str) -> None:
        """Show another text in a label."""
        if hasattr(label, "setText"):
            label.setText(text)
        else:
            label.configure(text=text)

    def call_after(self, widget: Any, delay_ms: int, function: Callable[[], None]) -> None:
        """Call `function` in the window's thread after `delay_ms` milliseconds, unless `widget` is gone by then."""
        if hasattr(self._components, "call_after"):
            self._components.call_after(widget, delay_ms, function)
        else:
            widget.after(delay_ms, function)
