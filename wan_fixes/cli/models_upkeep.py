"""`wan models gc`, `pin`, `unpin`, `dedup` and `cache-info`: what models take on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.console import AsJson, Debug, out, print_json, shown
from wan_fixes.cli.models_view import Model, Yes, day, names_there
from wan_fixes.cli.quantities import bytes_of, seconds_of
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.models.gc import GcPlan

_REASONS = {
    "age": "not used for too long",
    "size": "least recently used, beyond the size",
    "old version": "an earlier revision, put aside too long ago",
    "unfinished": "a download nobody went on with",
    "half removed": "left from a removal that was cut off",
}


def gc(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="What was not used for so long: 12h, 30d, 8w.")
    ] = "30d",
    max_size: Annotated[
        str,
        typer.Option(
            "--max-size",
            metavar="SIZE",
            help="The least recently used, until the others fit (default: WAN_MODELS_QUOTA, else 50GB).",
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it, also with --yes.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Remove models that were not used for long, and the least used beyond a size; first shown, removed with --yes.

    A model that is pinned, or in use, stays; so does the one that was used last, however large it is.
    """
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.gc import GcPolicy, ModelGc
    from wan_fixes.models.quota import DEFAULT_QUOTA, quota_bytes

    size = bytes_of(max_size, "--max-size") if max_size else quota_bytes() or DEFAULT_QUOTA
    policy = GcPolicy(size, seconds_of(older_than, "--older-than") / 86400.0)
    ensurer = ModelEnsurer()
    collector = ModelGc(ensurer)
    plan = collector.plan(policy)
    is_done = yes and not dry_run and bool(plan.removable)
    gone: tuple[Any, ...] = ()
    if is_done:
        with progress_bar("removing", len(plan.removable)) as update:
            gone = collector.collect(plan, update)
    if as_json:
        print_json(
            {
                "root": str(ensurer.resolver.root),
                "bytes": plan.bytes,
                "planned": [
                    {"name": one.name, "folder": str(one.folder), "reason": one.reason, "bytes": one.bytes}
                    | {"last_used": one.last_used, "removed": one in gone}
                    for one in plan.removable
                ],
                "kept": [{"name": kept.name, "folder": str(kept.folder), "why": kept.why} for kept in plan.kept],
                "bytes_reclaimed": sum(one.bytes for one in gone),
            }
        )
        return
    _show(plan, removed=is_done)
    if is_done:
        stays = len(plan.removable) - len(gone)
        busy = f"; {stays} stayed: used, changed or gone meanwhile" if stays else ""
        out.print(f"{size_text(sum(one.bytes for one in gone))} freed{busy}")
    elif plan.removable:
        out.print(f"nothing was removed: the same command with --yes frees {size_text(plan.reclaimed)}")


def _show(plan: GcPlan, *, removed: bool) -> None:
    if plan.removable:
        table = small_table("removed" if removed else "can go", "why", "last used", "frees", right=(3,))
        for one in plan.removable:
            used = day(one.last_used) if one.last_used else ""
            table.add_row(shown(one.name), _REASONS[one.reason], used, size_text(one.bytes))
        out.print(table)
    else:
        out.print(f"nothing can go; the models take {size_text(plan.bytes)}")
    for kept in plan.kept:
        out.print(shown(f"{kept.name} stays: {kept.why}"), soft_wrap=True)


def pin(model: Model, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Let nothing remove a model."""
    _pin(model, as_json=as_json, is_pinned=True)


def unpin(model: Model, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Let a model be removed again."""
    _pin(model, as_json=as_json, is_pinned=False)


def _pin(model: str, *, as_json: bool, is_pinned: bool) -> None:
    from wan_fixes.models import ModelEnsurer

    ensurer = ModelEnsurer()
    name = ensurer.target(model).name
    (ensurer.usage.pin if is_pinned else ensurer.usage.unpin)(name)
    if as_json:
        print_json({"name": str(name), "pinned": is_pinned})
    else:
        out.print(shown(f"{name} {'is pinned: nothing removes it' if is_pinned else 'may be removed again'}"))


def dedup(yes: Yes = False, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Store files that several models share once; first shown, done with --yes."""
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.dedup import find_duplicates, remove_duplicates

    ensurer = ModelEnsurer()
    found = find_duplicates(ensurer.resolver)
    done = []
    if yes and found:
        with progress_bar("linking", len(found)) as update:
            done = remove_duplicates(found, ensurer.locks, update)
    if as_json:
        entries = [
            {"path": str(one.path), "same_as": str(one.same_as), "bytes": one.size, "linked": one in done}
            for one in found
        ]
        print_json({"duplicates": entries, "bytes_freed": sum(one.size for one in done)})
        return
    if not found:
        out.print("no file is there twice")
        return
    table = small_table("is there twice", "frees", right=(1,))
    for one in found:
        table.add_row(shown(one.path.relative_to(ensurer.resolver.root)), size_text(one.size))
    out.print(table)
    if yes:
        stay = len(found) - len(done)
        left = f"; {stay} stayed: in use, changed meanwhile, or the file system has no links" if stay else ""
        out.print(f"{size_text(sum(one.size for one in done))} freed{left}")
    else:
        out.print(f"nothing was changed: the same command with --yes frees {size_text(sum(one.size for one in found))}")


def cache_info(as_json: AsJson = False, _debug: Debug = False) -> None:
    """Show what the models take on the disk, what they share, and when they were last used."""
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.disk_usage import disk_usage

    ensurer = ModelEnsurer()
    usage = disk_usage(ensurer, names_there(ensurer))
    if as_json:
        print_json(usage.as_json())
        return
    table = small_table("model", "size", "of it shared", "last used", "", right=(1, 2))
    for model in usage.models:
        marks = ", ".join(mark for mark, is_so in (("pinned", model.is_pinned), ("in use", model.is_in_use)) if is_so)
        table.add_row(shown(model.name), size_text(model.bytes), size_text(model.shared), day(model.last_used), marks)
    out.print(table)
    out.print(
        shown(
            f"{size_text(usage.bytes)} on the disk, earlier revisions {size_text(usage.old_versions)}, unfinished "
            f"downloads {size_text(usage.unfinished)}; {size_text(usage.free)} are free in {usage.root}"
        ),
        soft_wrap=True,
    )
