"""`wan runs`: which runs a workspace remembers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from wan_fixes.cli.console import AsJson, Debug, out, print_json, shown
from wan_fixes.cli.places import Workspace, find_run_database
from wan_fixes.cli.tables import duration_text, moment_text
from wan_fixes.errors import NoRunError

_NUMBERS = ("run", "samples", "left out", "steps")


def runs(place: Workspace = Path(), as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the runs of a workspace, the latest first. `--run N` of the other commands takes their numbers."""
    import time

    from wan_fixes.health import RunReader
    from wan_fixes.ui.view_model import end_of

    path = find_run_database(place)
    reader = RunReader(path)
    with reader.one_moment():
        found = [(run, reader.sample_counts(run.id), reader.step_count(run.id)) for run in reader.runs()]
    if as_json:
        listed = [
            {
                **{name: value for name, value in asdict(run).items() if name != "config"},
                "samples": counts,
                "steps": steps,
            }
            for run, counts, steps in found
        ]
        print_json({"database": str(path), "runs": listed})
        return
    if not found:
        raise NoRunError("there is no run", path=path, reason="none was recorded", fix="train first")
    out.print(Text("workspace  ", style="bold") + shown(path.parent), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("run", "kind", "began", "took", "state", "samples", "left out", "steps"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in _NUMBERS else "left")
    now = time.time()
    for run, counts, steps in found:
        left_out = counts["skipped"] + counts["failed"]
        table.add_row(
            str(run.id),
            shown(run.kind),
            moment_text(run.started),
            duration_text(end_of(run, now) - run.started),
            run.status,
            *(f"{count:,}" if count else "" for count in (counts["valid"], left_out, steps)),
        )
    out.print(table)
