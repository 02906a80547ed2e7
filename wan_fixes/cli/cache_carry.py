"""`wan cache export` and `import`: caches in one file, for another machine."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.console import AsJson, Debug, ExitCode, Place, as_dicts, out, print_json, shown
from wan_fixes.cli.places import find_cache_folder, find_sample_stores
from wan_fixes.errors import UserError
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.store import SampleStore


def export_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write; never replaced when it is there.")],
    place: Place = Path(),
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Write the caches of a preset or folder into one file for `wan cache import`."""
    from wan_fixes.store import SampleStore
    from wan_fixes.store.archive import export

    if file.exists():
        raise UserError("the file is there already", path=file, fix="name another one, or delete it")
    if not file.absolute().parent.is_dir():
        raise UserError("the folder does not exist", path=file.absolute().parent, fix="make it, or name another file")
    folder = find_cache_folder(place)
    with ExitStack() as stack:
        stores = {
            "/".join(root.relative_to(folder).parts): stack.enter_context(SampleStore(root))
            for root in find_sample_stores(place)
        }
        total = sum(store.stats().bytes for store in stores.values())
        with progress_bar("exporting", total, in_bytes=True) as update:
            result = export(stores, file, on_progress=update)
    if as_json:
        refused = as_dicts(result.refused)
        print_json(
            {
                "file": str(file),
                "exported": result.exported,
                "lists": result.lists,
                "bytes": result.bytes,
                "refused": refused,
            }
        )
    else:
        _show_refused(f"{error.path}: {error.reason}" for error in result.refused)
        out.print(shown(f"{result.exported} entries, {size_text(result.bytes)}: {file}"), soft_wrap=True)
    if result.refused:
        raise typer.Exit(ExitCode.FAILED)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `wan cache export` wrote.")],
    place: Place = Path(),
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Take in the caches of an exported file. Each entry is verified; what is not sound is refused and named."""
    from wan_fixes.store import SampleStore
    from wan_fixes.store.archive import import_ as take_in

    folder = find_cache_folder(place)
    with ExitStack() as stack:

        def open_store(name: str) -> SampleStore:
            return stack.enter_context(SampleStore(folder / name))

        size = file.stat().st_size if file.is_file() else 0
        with progress_bar("importing", size, in_bytes=True) as update:
            result = take_in(file, open_store, on_progress=update)
    if as_json:
        refused = as_dicts(result.refused)
        counts = {"imported": result.imported, "present": result.present, "lists": result.lists}
        print_json({"folder": str(folder), **counts, "refused": refused})
    else:
        _show_refused(error.reason for error in result.refused)
        text = f"{result.imported} entries taken in, {result.present} were there, {len(result.refused)} refused"
        out.print(shown(f"{text}: {folder}"), soft_wrap=True)
    if result.refused:
        raise typer.Exit(ExitCode.FAILED)


def _show_refused(refused: Iterable[str]) -> None:
    for text in refused:
        out.print(shown(f"refused: {text}"), soft_wrap=True)
