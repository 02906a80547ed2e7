"""The window of `wan ui`: the same pages as in OneTrainer's, for a run that goes on elsewhere on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import customtkinter as ctk

from wan_fixes.health import plain
from wan_fixes.ui.actions import Actions
from wan_fixes.ui.ctk.components import Components
from wan_fixes.ui.kit import kit_for
from wan_fixes.ui.tab import report_beside
from wan_fixes.ui.view import View
from wan_fixes.ui.watch import RunWatch

logger = logging.getLogger(__name__)

_SIZE = "1100x740"  # pixels, as OneTrainer's window
_SMALLEST = (760, 560)
_WAKE_MILLISECONDS = 300  # Ctrl-C in the terminal is seen when the window's thread runs Python


class WanWindow(ctk.CTk):
    """Shows the runs of one database until it is closed.

    Parameters
    ----------
    database:
        The run database; it need not be there yet.
    config:
        The configuration for the checks, as far as it is known.
    mode:
        "light", "dark", or "system".
    """

    def __init__(self, database: Path, config: Callable[[], Mapping[str, Any]], *, mode: str = "system") -> None:
        ctk.set_appearance_mode(mode)
        ctk.set_default_color_theme("blue")
        super().__init__()
        self.title(f"WAN fixes: {plain(database.parent, limit=200)}")
        self.geometry(_SIZE)
        self.minsize(*_SMALLEST)
        self.grid_rowconfigure(0, weight=1)
        self.grid_columnconfigure(0, weight=1)
        frame = ctk.CTkFrame(self, corner_radius=0)
        frame.grid(row=0, column=0, sticky="nsew")
        frame.grid_rowconfigure(0, weight=1)
        frame.grid_columnconfigure(0, weight=1)
        inner = ctk.CTkFrame(frame, fg_color="transparent")
        inner.grid(row=0, column=0, sticky="nsew", padx=8, pady=8)
        components = Components(self)
        self.view = View(
            kit_for(components, inner),
            inner,
            make_watch=lambda: RunWatch(lambda: database, config=config),
            actions=Actions(config, lambda: database),
            report_path=lambda: report_beside(database) if database.is_file() else None,
        )
        self.protocol("WM_DELETE_WINDOW", self.destroy)
        self._waiting = self.after(_WAKE_MILLISECONDS, self._wake)

    def destroy(self) -> None:
        """Close the window."""
        self.after_cancel(self._waiting)
        super().destroy()

    def report_callback_exception(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """Called by tkinter with what is raised in this thread."""
        if issubclass(kind, KeyboardInterrupt):
            self.destroy()
        else:
            logger.error("a fault in the window", exc_info=(kind, error, trace))

    def _wake(self) -> None:
        self._waiting = self.after(_WAKE_MILLISECONDS, self._wake)
