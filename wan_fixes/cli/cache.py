"""`wan cache`: what the sample caches hold, and whether it is sound."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wan_fixes.cli import cache_build, cache_carry, cache_gc
from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.console import AsJson, Debug, ExitCode, Place, as_dicts, err, out, print_json, shown, why_and_fix
from wan_fixes.cli.places import find_cache_folder, find_run_database, find_sample_stores
from wan_fixes.cli.tables import small_table
from wan_fixes.errors import UserError
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.store import SampleStore

app = typer.Typer(help="Look after the sample cache.", no_args_is_help=True, rich_markup_mode=None)
app.command("build")(cache_build.build)
app.command("gc")(cache_gc.gc)
app.command("export")(cache_carry.export_)
app.command("import")(cache_carry.import_)


@app.command("stats")
def stats(place: Place = Path(), as_json: AsJson = False, _debug: Debug = False) -> None:
    """Show what is cached, for which concepts, how large it is, and how much was found damaged."""
    stores = [_stats_of(root) for root in find_sample_stores(place)]
    total = {name: sum(store[name] for store in stores) for name in ("entries", "bytes", "corrupt")}
    concepts = _by_concept(stores)
    last_run = _last_run(place)
    if as_json:
        print_json({"stores": stores, "total": total, "concepts": concepts, "last_run": last_run})
        return
    table = small_table("cache", "entries", "size", "damaged", right=(1, 2, 3))
    for store in stores:
        table.add_row(shown(store["path"]), str(store["entries"]), size_text(store["bytes"]), str(store["corrupt"]))
    if len(stores) > 1:
        table.add_section()
        table.add_row("all", str(total["entries"]), size_text(total["bytes"]), str(total["corrupt"]))
    if concepts:
        _show_concepts(concepts, stores)
    if last_run is not None:
        seconds = last_run["mean_read_seconds"]
        reads = "" if seconds is None else f", {seconds * 1000:.1f} ms a read"
        hits = f"{last_run['hits']} hits, {last_run['misses']} misses ({last_run['hit_rate']:.0%} hits)"
        out.print(f"last run: {hits}{reads}\n")
    out.print(table)
    _show_notices(notice for store in stores for notice in store["notices"])


@app.command("verify")
def verify(place: Place = Path(), as_json: AsJson = False, _debug: Debug = False) -> None:
    """Read every entry and compare its checksums. Exits with 1 when something is wrong; changes no entry."""
    from wan_fixes.store.upkeep import verify_store

    answer: list[dict[str, Any]] = []
    for root in find_sample_stores(place):
        with progress_bar("verifying") as update:
            found = verify_store(root, update)
        answer.append({"path": str(root), "entries": found.entries, "problems": as_dicts(found.problems)})
    wrong = [problem for cache in answer for problem in cache["problems"]]
    if as_json:
        print_json({"stores": answer, "problems": len(wrong)})
    else:
        _show_problems("file", wrong)
        entries = sum(cache["entries"] for cache in answer)
        out.print(f"{entries} entries in {len(answer)} caches, {len(wrong)} problems")
        if wrong:
            out.print("`wan cache repair` sets damaged entries aside; the next training makes them again")
    if wrong:
        raise typer.Exit(ExitCode.FAILED)


@app.command("repair")
def repair(place: Place = Path(), as_json: AsJson = False, _debug: Debug = False) -> None:
    """Set damaged and foreign entries aside, and make the index anew. The next training makes again what it needs."""
    from wan_fixes.store.upkeep import repair_store
    from wan_fixes.ui.cache_in_use import refuse_while_in_use

    roots = find_sample_stores(place)
    refuse_while_in_use(find_cache_folder(place), _readable_run_database(place))
    answer: list[dict[str, Any]] = []
    for root in roots:
        with progress_bar("repairing") as update:
            done = repair_store(root, update)
        answer.append(
            {
                "path": str(root),
                "set_aside": as_dicts(done.repaired.discarded),
                "left_alone": as_dicts(done.repaired.left),
                "index_was_damaged": done.index_was_damaged,
                "old_indexes_deleted": done.repaired.old_indexes,
                "lists_deleted": done.repaired.lists,
                "entries": done.entries,
            }
        )
    if as_json:
        print_json({"stores": answer})
        return
    _show_problems("set aside", [problem for cache in answer for problem in cache["set_aside"]])
    _show_problems("left alone", [problem for cache in answer for problem in cache["left_alone"]])
    for cache in answer:
        parts = [
            f"{cache['path']}: {len(cache['set_aside'])} entries set aside",
            f"index made anew with {cache['entries']} entries",
        ]
        for name, what in (("old_indexes_deleted", "old indexes"), ("lists_deleted", "damaged lists of samples")):
            if cache[name]:
                parts.append(f"{cache[name]} {what} deleted")
        out.print(shown(", ".join(parts)), soft_wrap=True)


def _readable_run_database(place: Path) -> Path | None:
    """That of a preset's workspace, or below a folder; None where there is none, or nothing can be learned from it."""
    from wan_fixes.health import RunReader

    with contextlib.suppress(UserError):
        path = find_run_database(place)
        RunReader(path).check()
        return path
    return None


def _stats_of(root: Path) -> dict[str, Any]:
    """Totals of one store. Hits and misses are of this process, which reads no sample, and therefore left out."""
    from wan_fixes.store import SampleStore

    with SampleStore(root) as store:
        totals = store.stats()
        return {
            "path": str(root),
            "entries": totals.entries,
            "bytes": totals.bytes,
            "corrupt": totals.corrupt,
            "concepts": [{"name": name, "entries": entries, "bytes": size} for name, entries, size in store.concepts()],
            "unneeded": _unneeded(store),
            "notices": [str(notice) for notice in store.notices],
        }


def _unneeded(store: SampleStore) -> dict[str, int] | None:
    """What no latest start needed; None when no start was noted."""
    if not store.knows_needs():
        return None
    sizes = [usage.size for usage in store.usage() if not usage.needed]
    return {"entries": len(sizes), "bytes": sum(sizes)}


def _by_concept(stores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for store in stores:
        for concept in store["concepts"]:
            entries[concept["name"]] += concept["entries"]
            sizes[concept["name"]] += concept["bytes"]
    return [{"name": name, "entries": entries[name], "bytes": sizes[name]} for name in sorted(entries)]


def _show_concepts(concepts: list[dict[str, Any]], stores: list[dict[str, Any]]) -> None:
    table = small_table("concept", "entries", "size", right=(1, 2))
    for concept in concepts:
        table.add_row(shown(concept["name"] or "(no name)"), str(concept["entries"]), size_text(concept["bytes"]))
    unneeded = [store["unneeded"] for store in stores if store["unneeded"] is not None]
    table.add_section()
    count, size = sum(part["entries"] for part in unneeded), sum(part["bytes"] for part in unneeded)
    table.add_row("needed by no latest start", str(count), size_text(size))
    out.print(table)
    out.print()


def _last_run(place: Path) -> dict[str, Any] | None:
    """What the last run of a preset found in its caches; None where there is none, or a folder was named."""
    if place.suffix != ".json":
        return None
    from wan_fixes.health import RunReader
    from wan_fixes.ui.view_model import view_run

    try:
        view = view_run(RunReader(find_run_database(place)))
    except UserError:
        return None
    if view is None or view.cache_hit_rate is None:
        return None
    rate = view.cache_hit_rate
    return {
        "hits": view.cache_hits,
        "misses": view.cache_misses,
        "hit_rate": rate,
        "miss_rate": 1 - rate,
        "mean_read_seconds": view.cache_read_seconds,
    }


def _show_problems(heading: str, problems: list[dict[str, str]]) -> None:
    if not problems:
        return
    table = small_table(heading, "why, and what helps")
    for problem in problems:
        table.add_row(shown(problem["path"]), why_and_fix(problem["reason"], problem["fix"]))
    out.print(table)
    out.print()


def _show_notices(notices: Iterable[str]) -> None:
    for notice in notices:
        err.print(shown(notice), soft_wrap=True)
