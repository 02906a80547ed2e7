"""`wan models migrate`: models that are on this machine already are taken over, and given back with --undo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wan_fixes.cli.console import AsJson, Debug, ExitCode, out, print_json, shown
from wan_fixes.cli.models_view import Yes, bytes_bar, some_of
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text


def migrate(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="A model, a folder of models, or a cache of the hub's client."),
    ] = None,
    name: Annotated[str | None, typer.Option("--as", metavar="MODEL", help="Which model the folder is.")] = None,
    undo: Annotated[str | None, typer.Option("--undo", metavar="MODEL", help="Take the links away again.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Take over models that are there already: their files are verified and linked, not copied, and never changed.

    First the models that were found are shown; with --yes they are taken over. Exits with 4 when one lacks files.
    """
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.adopt import Migration
    from wan_fixes.models.sources.hub_cache import hub_cache_folder

    migration = Migration(ModelEnsurer())
    if undo is not None:
        undone = migration.undo(undo)
        if as_json:
            print_json({"undone": undo, "folder": str(undone.folder)})
        else:
            out.print(shown(f"{undo} is no longer linked; what was linked is in {undone.folder}"), soft_wrap=True)
            if undone.left:
                out.print(shown(f"what was fetched stays: {some_of(undone.left)}"), soft_wrap=True)
        return
    candidates = migration.find(folder or hub_cache_folder(), name)
    if not yes:
        if as_json:
            entries = [{"name": str(found.target.name), "folder": str(found.folder)} for found in candidates]
            print_json({"found": entries, "adopted": []})
            return
        table = small_table("found", "in")
        for candidate in candidates:
            table.add_row(shown(candidate.target.name), shown(candidate.folder))
        out.print(table)
        out.print("nothing was changed: the same command with --yes verifies and links them")
        return
    done = []
    for candidate in candidates:
        with bytes_bar(f"verifying {candidate.target.name}") as came:
            done.append(migration.adopt(candidate, on_progress=came))
    if as_json:
        print_json({"found": [], "adopted": [{**vars(one), "folder": str(one.folder)} for one in done]})
    else:
        for one in done:
            lacks = f", lacks {some_of(one.missing)}: `wan models ensure` fetches {size_text(one.bytes_needed)}"
            state = "complete" if one.is_complete else f"{size_text(one.linked)} linked{lacks}"
            out.print(shown(f"{one.name}: {state}"), soft_wrap=True)
    if not all(one.is_complete for one in done):
        raise typer.Exit(ExitCode.INCOMPLETE)
