"""`wan stats`: the last run of a workspace, or the one that is running."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from wan_fixes.cli.console import AsJson, Debug, name_within, out, print_json, shown, why_and_fix
from wan_fixes.cli.places import find_run_database
from wan_fixes.cli.tables import duration_text, facts_table, small_table
from wan_fixes.errors import UserError

if TYPE_CHECKING:
    from wan_fixes.ui.view_model import RunView

_STUCK_SECONDS = 60.0


def stats(
    place: Annotated[
        Path, typer.Argument(metavar="[WORKSPACE|PRESET]", help="A workspace folder, a folder above it, or a preset.")
    ] = Path(),
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show what the last run did, or what the running one is doing."""
    from wan_fixes.health import RunDatabase
    from wan_fixes.ui.view_model import view_run

    path = find_run_database(place)
    view = view_run(RunDatabase.open_readonly(path))
    if view is None:
        raise UserError(
            "there is no run", path=path, reason="none was recorded", fix="train first: wan train --config …"
        )
    if as_json:
        print_json({"database": str(path), **as_dict(view)})
        return
    out.print(Text("workspace  ", style="bold") + shown(path.parent), soft_wrap=True)
    show_run(view)


def as_dict(view: RunView) -> dict[str, Any]:
    """The view as JSON types, with what it computes."""
    return {
        **asdict(view),
        "cache_hit_rate": view.cache_hit_rate,
        "cache_read_seconds": view.cache_read_seconds,
        "modules": [{**asdict(row), "items_per_second": row.items_per_second} for row in view.modules],
    }


def show_run(view: RunView, *, modules: bool = True) -> None:
    """Print the run: samples, cache, steps, times, then what was skipped and why, then the modules' times."""
    facts = facts_table()
    state = view.state
    if state == "running" and view.silent_seconds > _STUCK_SECONDS:
        state += f", but silent for {duration_text(view.silent_seconds)}"
    facts.add_row("run", f"{view.run_id} ({view.kind}): {state}, {duration_text(view.duration_seconds)}")
    facts.add_row(
        "samples", f"{view.valid} valid, {view.skipped} skipped, {view.failed} failed, {view.warned} with warnings"
    )
    if view.cache_hit_rate is not None:
        hits = f"{view.cache_hits} hits, {view.cache_misses} misses ({view.cache_hit_rate:.0%} hits)"
        facts.add_row("cache", hits)
    if view.last_step is not None:
        pace = f", {view.steps_per_second:.2f} steps/s" if view.steps_per_second else ""
        facts.add_row("steps", f"{view.steps}, now at {view.last_step.step}, loss {view.last_step.loss:.4f}{pace}")
    if view.last_event is not None:
        facts.add_row("last event", shown(view.last_event.message))
    out.print(facts)
    if view.skipped_samples:
        out.print()
        out.print(skipped_table(view))
    if modules and view.modules:
        out.print()
        table = small_table("module", "time", "items", "items/s", right=(1, 2, 3))
        for row in view.modules:
            pace = f"{row.items_per_second:.1f}" if row.items_per_second else ""
            table.add_row(shown(row.module), duration_text(row.seconds), str(row.items), pace)
        out.print(table)


def skipped_table(view: RunView) -> Any:
    """Every sample that was left out, with the reason and what helps."""
    folders = [concept["path"] for concept in view.config.get("concepts", ()) if "path" in concept]
    table = small_table("left out", "why, and what helps")
    for sample in view.skipped_samples:
        table.add_row(name_within(sample.path, folders), why_and_fix(sample.reason, sample.fix))
    return table
