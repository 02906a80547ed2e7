"""`wan ui`: a window on the last run of a workspace, or the one that is running, wherever it was started."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from wan_fixes.cli.console import Debug
from wan_fixes.cli.places import Workspace, expected_run_database, find_run_database
from wan_fixes.errors import NoRunError, UserError


class Appearance(str, Enum):
    """How bright the window is."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


def ui(
    place: Workspace = Path(),
    appearance: Annotated[
        Appearance, typer.Option("--appearance", help="Light or dark, or as the desktop is.")
    ] = Appearance.SYSTEM,
    _debug: Debug = False,
) -> None:
    """Open a window on the last run, or the one that is running: the same as the tab in OneTrainer."""
    require_toolkit()
    import tkinter

    from wan_fixes.ui.ctk.window import WanWindow

    try:
        database = find_run_database(place)
    except NoRunError:
        database = expected_run_database(place)  # the window says that there is none, and shows it when it comes
    preset = read_preset(place)
    try:
        window = WanWindow(
            database, lambda: config_of_last_run(database) if preset is None else preset, mode=appearance.value
        )
    except tkinter.TclError as error:
        raise UserError(
            "no window can be opened",
            reason=str(error),
            fix="call it where there is a screen; `wan stats` shows the same in a terminal",
        ) from error
    window.mainloop()


def require_toolkit() -> None:
    """Raise `UserError` where tkinter or customtkinter is missing."""
    if importlib.util.find_spec("tkinter") is None or importlib.util.find_spec("_tkinter") is None:
        raise UserError(
            "no window can be opened",
            reason="this Python has no tkinter",
            fix="install it (on Debian: apt install python3-tk), or use another Python; `wan stats` needs none",
        )
    if importlib.util.find_spec("customtkinter") is None:
        raise UserError(
            "no window can be opened",
            reason="customtkinter is not installed",
            fix='pip install "wan-fixes[ui]", or in a checkout: pip install -e ".[ui]"',
        )


def read_preset(place: Path) -> Mapping[str, Any] | None:
    """What is in a preset; None where a workspace is named."""
    from wan_fixes.hosts.standalone.reading import read_json

    data = read_json(place, "preset") if place.suffix == ".json" else None
    return data if isinstance(data, dict) else None


def config_of_last_run(database: Path) -> Mapping[str, Any]:
    """The configuration that the last run was started with, for checks without a preset; empty where there is none."""
    from wan_fixes.health import RunReader

    if not database.is_file():
        return {}
    run = RunReader(database).latest_run()
    return {} if run is None else run.config
