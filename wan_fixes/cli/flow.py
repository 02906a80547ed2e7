"""`wan flow`: the data flow of a run as a picture."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from wan_fixes.cli.console import Debug, err, shown
from wan_fixes.cli.places import RunNumber, Workspace, find_run, find_run_database


class Format(str, Enum):
    """What the picture is written as."""

    html = "html"
    mermaid = "mermaid"
    svg = "svg"


def flow(
    place: Workspace = Path(),
    run_id: RunNumber = None,
    kind: Annotated[
        Format, typer.Option("--format", help="A page, text for GitHub, or the picture alone.")
    ] = Format.html,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write it to this file.")] = None,
    _debug: Debug = False,
) -> None:
    """Draw which module gave what to which in a run, how much, how long it took, and what was left out."""
    from wan_fixes.health import RunReader
    from wan_fixes.health.html_page import write_page
    from wan_fixes.ui.flow_page import flow_mermaid, flow_page, flow_svg_file, recorded_flows

    path = find_run_database(place)
    database = RunReader(path)
    run = find_run(database, run_id)
    flows = recorded_flows(database, run.id)
    if kind is Format.html:
        text = flow_page(flows, run.id)
        output = output or path.parent / f"flow-{run.id}.html"
    else:
        text = flow_mermaid(flows) if kind is Format.mermaid else flow_svg_file(flows, run.id)
    if output is None:
        sys.stdout.write(text)
        return
    write_page(text, output)
    err.print(shown(f"written: {output}"), soft_wrap=True)
