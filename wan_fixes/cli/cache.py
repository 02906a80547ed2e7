"""`wan cache`: what the sample caches hold."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from wan_fixes.cli.console import AsJson, Debug, err, out, print_json, shown
from wan_fixes.cli.places import find_sample_stores
from wan_fixes.cli.tables import size_text, small_table

app = typer.Typer(help="Look at the sample cache.", no_args_is_help=True, rich_markup_mode=None)


@app.command("stats")
def stats(
    place: Annotated[Path, typer.Argument(metavar="[PRESET|FOLDER]", help="A preset, or a folder.")] = Path(),
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show how many samples are cached, how large they are, and how many were found damaged."""
    stores = [_stats_of(root) for root in find_sample_stores(place)]
    total = {name: sum(store[name] for store in stores) for name in ("entries", "bytes", "corrupt")}
    if as_json:
        print_json({"stores": stores, "total": total})
        return
    table = small_table("cache", "entries", "size", "damaged", right=(1, 2, 3))
    for store in stores:
        table.add_row(shown(store["path"]), str(store["entries"]), size_text(store["bytes"]), str(store["corrupt"]))
    if len(stores) > 1:
        table.add_section()
        table.add_row("all", str(total["entries"]), size_text(total["bytes"]), str(total["corrupt"]))
    out.print(table)
    for store in stores:
        for notice in store["notices"]:
            err.print(shown(notice), soft_wrap=True)


def _stats_of(root: Path) -> dict[str, Any]:
    """Totals of one store. Hits and misses are of this process, which reads no sample, and therefore left out."""
    from wan_fixes.store import SampleStore

    with SampleStore(root) as store:
        totals = asdict(store.stats())
        notices = [str(notice) for notice in store.notices]
    return {"path": str(root), **{name: totals[name] for name in ("entries", "bytes", "corrupt")}, "notices": notices}
