"""The page of what can be checked, repaired and reported, with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from wan_fixes.health import plain
from wan_fixes.health.numbers import count_text
from wan_fixes.ui.actions import Actions, Task
from wan_fixes.ui.desktop import open_folder
from wan_fixes.ui.kit import Kit
from wan_fixes.ui.theme import Tone
from wan_fixes.ui.watch import Glance
from wan_fixes.ui.words import line

_LINES: Final = 500
"""So many of the latest lines are shown."""
_HINT: Final = (
    "What comes of a check is written here. Nothing that is yours is changed: repairing touches the cache alone."
)
_STATES: Final[dict[str, tuple[str, Tone]]] = {
    "running": ("at work", "text"),
    "done": ("✓ done", "good"),
    "failed": ("✕ failed", "bad"),
    "stopped": ("■ stopped", "warn"),
}


class ChecksPage:
    """Laid out once, updated about once a second."""

    title = "Checks"
    wants: Mapping[str, Any] = {"charts": False, "models": False, "statuses": ()}

    def __init__(self, kit: Kit, box: Any, actions: Actions, report_path: Callable[[], Path | None]) -> None:
        self._actions = actions
        self._report_path = report_path
        self._folder: Path | None = None
        kit.grow(box, rows={3: 1}, columns={0: 1})
        top = kit.box(box, 0, 0)
        kit.grow(top, columns={1: 1})
        offers: list[tuple[str, str, Callable[[], Task | None]]] = [
            (
                "Check configuration",
                "Looks over this configuration before a training does.",
                actions.check_configuration,
            ),
            ("Check dataset", "Looks at every file of the concepts, as `wan check` does.", actions.check_dataset),
            ("Verify cache", "Reads every entry of the cache, and names what is damaged.", actions.verify_cache),
            ("Repair cache", "The same, and sets aside what is damaged: it is made again.", actions.repair_cache),
            ("Export report", "Writes a page about the latest run, to keep or to send.", self._report),
        ]
        self._buttons = []
        for row, (name, what, begin) in enumerate(offers):
            self._buttons.append(kit.button(top, row, 0, name, partial(self._begin, begin)))
            kit.text(top, row, 1).set(what, "dim")
        state = kit.box(box, 1, 0)
        kit.grow(state, columns={0: 1})
        self._state = kit.text(state, 0, 0, bold=True)
        self._stop = kit.button(state, 0, 1, "Stop", self._stop_task)
        self._open = kit.button(state, 0, 2, "Open folder", self._open_folder)
        self._progress = kit.progress(box, 2, 0)
        self._lines = kit.lines(box, 3, 0, lines=10, follows=True)
        self._refused = ""
        self._opened = ""
        self._show()

    def update(self, _glance: Glance) -> None:
        """Show what is known now."""
        self._show()

    def _begin(self, begin: Callable[[], Task | None]) -> None:
        self._refused = self._opened = ""
        task = begin()
        if task is not None and task is not self._actions.current:
            self._refused = line(" ".join(task.lines))
        self._show()

    def _report(self) -> Task | None:
        path = self._report_path()
        if path is None:
            self._refused = "There is no run yet to report on."
            return None
        self._folder = path.parent
        return self._actions.export_report(path)

    def _stop_task(self) -> None:
        if self._actions.current is not None:
            self._actions.current.stop()

    def _open_folder(self) -> None:
        if self._folder is not None:
            self._opened = open_folder(self._folder) or f"Opened: {line(self._folder)}"
            self._show()

    def _show(self) -> None:
        task = self._actions.current
        now = None if task is None else task.state  # once: it changes meanwhile
        running = now == "running"
        for button in self._buttons:
            button.enable(not running)
        self._stop.enable(running)
        self._open.enable(self._folder is not None and not running)
        if task is None or now is None:
            self._state.set(self._refused or self._opened, "warn" if self._refused else "dim")
            self._progress.set(None)
            self._lines.set(_HINT)
            return
        words, tone = _STATES[now]
        counted = f", {count_text(task.done)} of {count_text(task.total)}" if task.total and now != "done" else ""
        said = self._refused or self._opened
        self._state.set(f"{line(task.title)}: {words}{counted}{f'. {said}' if said else ''}", tone)
        self._progress.set(task.done / task.total if running and task.total else None)
        left_out = len(task.lines) - _LINES
        shown = [f"({count_text(left_out)} earlier lines are not shown)"] if left_out > 0 else []
        self._lines.set("\n".join([*shown, *(plain(text, limit=4096) for text in task.lines[-_LINES:])]))
