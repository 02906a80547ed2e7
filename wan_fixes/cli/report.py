"""`wan report`: a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wan_fixes.cli.console import Debug, err, shown
from wan_fixes.cli.places import RunNumber, Workspace, find_run, find_run_database


def report(
    place: Workspace = Path(),
    run_id: RunNumber = None,
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write it to this file.")] = None,
    _debug: Debug = False,
) -> None:
    """Write a page on a run: what was left out and why, charts, times, data flow, events, configuration."""
    from wan_fixes.health import RunReader
    from wan_fixes.health.html_page import write_page
    from wan_fixes.ui.report_page import report_page

    path = find_run_database(place)
    database = RunReader(path)
    run = find_run(database, run_id)
    page = page or path.parent / f"report-{run.id}.html"
    write_page(report_page(database, run.id), page)
    err.print(shown(f"written: {page}"), soft_wrap=True)
