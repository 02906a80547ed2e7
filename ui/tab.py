"""The plugin's tab in OneTrainer's window, whichever toolkit it is of."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from wan_fixes.health import run_database_path
from wan_fixes.settings import Settings
from wan_fixes.ui.actions import Actions
from wan_fixes.ui.kit import kit_for
from wan_fixes.ui.view import SETTINGS, View
from wan_fixes.ui.watch import RunWatch


class WanTab:
    """Fills one tab; made anew for each window."""

    title = "WAN fixes"
    scrolls = False
    """Its pages scroll where they must."""

    def build(self, components: Any, frame: Any) -> None:
        """Lay the pages into `frame`, in OneTrainer's own style."""
        place = WorkspaceRuns(components)

        def config() -> dict[str, Any]:
            return components.config() or {}

        View(
            kit_for(components, frame),
            frame,
            make_watch=lambda: RunWatch(place.database, config=config),
            actions=Actions(config, place.database, host_types=components.model_types),
            report_path=place.report_path,
            first_page=0 if Settings.load().enabled else SETTINGS,
        )


class WorkspaceRuns:
    """The run database of the workspace that the window names at the moment. Safe to ask from any thread."""

    def __init__(self, components: Any) -> None:
        self._components = components
        self._lock = threading.Lock()
        self._known: tuple[str, Path] | None = None

    def database(self) -> Path | None:
        """Its path; None where the window names no workspace. Whether the workspace is on a network is asked once."""
        workspace = self._components.workspace_dir()
        if not workspace:
            return None
        with self._lock:
            if self._known is None or self._known[0] != workspace:
                self._known = workspace, run_database_path(workspace)
            return self._known[1]

    def report_path(self) -> Path | None:
        """Where a report goes: into the workspace; None where nothing was run yet."""
        database = self.database()
        return report_beside(database) if database is not None and database.is_file() else None


def report_beside(database: Path) -> Path:
    """The file for a report of the latest run of a database."""
    return database.with_name("run-report.html")
