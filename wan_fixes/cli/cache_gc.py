"""`wan cache gc`: remove what is old, too much, or no longer needed; only shown, until it is asked for."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.console import AsJson, Debug, Place, out, print_json
from wan_fixes.cli.places import find_sample_stores
from wan_fixes.cli.quantities import bytes_of, seconds_of
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.store.gc import Removable

_REASONS = {
    "age": "not used for too long",
    "size": "least recently used, beyond the size",
    "unneeded": "needed by no latest start",
    "quarantined": "set aside as damaged too long ago",
}


def gc(
    place: Place = Path(),
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="What was not used for so long: 12h, 30d, 8w.")
    ] = "",
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="The least recently used, until it fits: 500MB, 50GB.")
    ] = "",
    unneeded: Annotated[
        bool, typer.Option("--unneeded", help="What no training needed when it was last started.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it. Without this it is only shown.")] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Remove what fits any of these; first shown, with counts and sizes, and removed with --yes."""
    if not (older_than or max_size or unneeded):
        raise typer.BadParameter("say what can go: --older-than 30d, --max-size 50GB, --unneeded, or several of them")
    seconds = seconds_of(older_than, "--older-than") if older_than else None
    size = bytes_of(max_size, "--max-size") if max_size else None

    from wan_fixes.store import SampleStore
    from wan_fixes.store.gc import plan_removal, remove

    with ExitStack() as stack:
        stores = [stack.enter_context(SampleStore(root)) for root in find_sample_stores(place)]
        planned = plan_removal(stores, older_than=seconds, max_bytes=size, unneeded=unneeded)
        freed = 0
        if yes and planned:
            with progress_bar("removing", len(planned)) as update:
                freed = remove(planned, update)
        totals = [store.stats() for store in stores]
        entries, held = sum(total.entries for total in totals), sum(total.bytes for total in totals)
    rows = _by_reason(planned)
    if as_json:
        keys = ("reason", "entries", "bytes")
        plan = [dict(zip(keys, row, strict=True)) for row in rows]
        print_json({"planned": plan, "removed": yes, "bytes_freed": freed, "entries": entries, "bytes": held})
        return
    _show(rows, removed=yes)
    if yes:
        out.print(f"{size_text(freed)} freed, {entries} entries ({size_text(held)}) stay")
    elif rows:
        out.print("nothing was removed: the same command with --yes does it")


def _show(rows: list[tuple[str, int, int]], *, removed: bool) -> None:
    if not rows:
        out.print("nothing fits")
        return
    table = small_table("removed" if removed else "can go", "files", "size", right=(1, 2))
    for reason, count, size in rows:
        table.add_row(_REASONS[reason], str(count), size_text(size))
    if len(rows) > 1:
        table.add_section()
        table.add_row("all", str(sum(row[1] for row in rows)), size_text(sum(row[2] for row in rows)))
    out.print(table)


def _by_reason(planned: list[Removable]) -> list[tuple[str, int, int]]:
    """Reason, number of files and their bytes."""
    of_reason = {reason: [one.bytes for one in planned if one.reason == reason] for reason in _REASONS}
    return [(reason, len(sizes), sum(sizes)) for reason, sizes in of_reason.items() if sizes]
