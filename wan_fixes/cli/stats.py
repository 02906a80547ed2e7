"""`wan stats`: the last run of a workspace, or the one that is running, once or until it ends."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from wan_fixes.cli.console import AsJson, Debug, out, print_json, shown
from wan_fixes.cli.places import RunNumber, Workspace, find_run, find_run_database

if TYPE_CHECKING:
    from wan_fixes.ui.view_model import RunView


def stats(
    place: Workspace = Path(),
    number: RunNumber = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on showing it, about once a second, until the run ends.")
    ] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show what the last run did, or what the running one is doing."""
    from wan_fixes.cli.stats_view import whole_run
    from wan_fixes.health import RunReader
    from wan_fixes.ui.view_model import view_run

    if follow:
        from wan_fixes.cli.following import follow as follow_run

        follow_run(place, number, as_json=as_json, as_dict=as_dict)
        return
    path = find_run_database(place)
    reader = RunReader(path)
    view = view_run(reader, find_run(reader, number).id)
    assert view is not None
    if as_json:
        print_json({"database": str(path), **as_dict(view)})
        return
    out.print(Text("workspace  ", style="bold") + shown(path.parent), soft_wrap=True)
    out.print(whole_run(view))


def as_dict(view: RunView) -> dict[str, Any]:
    """The view as JSON types, with what it computes."""
    return {
        **asdict(view),
        "cache_hit_rate": view.cache_hit_rate,
        "cache_read_seconds": view.cache_read_seconds,
        "cache_bytes": view.cache_bytes,
        "breakers_open": view.breakers_open,
        "modules": [{**asdict(row), "items_per_second": row.items_per_second} for row in view.modules],
    }
