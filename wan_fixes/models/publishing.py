"""What was fetched takes the model's place: all at once, or file by file where there was something before."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from wan_fixes.models.installed import REMOVING_NAME, VERIFIED_NAME, Verified
from wan_fixes.models.layout import no_space, not_writable
from wan_fixes.models.listing import Listing
from wan_fixes.models.names import ModelName
from wan_fixes.models.records import FileRecord
from wan_fixes.store.atomic import FULL


def publish(
    name: ModelName,
    listing: Listing,
    partial: Path,
    folder: Path,
    fetched: Mapping[str, FileRecord],
    right: Mapping[str, FileRecord],
) -> None:
    """Move the `fetched` files to `folder`, where those that are `right` already stay, and write down all of them.

    Raises ModelError. The folder counts as complete when this returns, and never before.
    """
    with disk_errors(folder):
        if fetched:
            _move(partial, folder, fetched)
        files = {
            path: replace(record, mtime_ns=(folder / path).stat().st_mtime_ns)
            for path, record in {**right, **fetched}.items()
        }
        (folder / REMOVING_NAME).unlink(missing_ok=True)
    Verified.now(name, listing, files).write(folder)


def _move(partial: Path, folder: Path, fetched: Mapping[str, FileRecord]) -> None:
    (folder / VERIFIED_NAME).unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        keep_only(partial, fetched)
        partial.replace(folder)
        return
    for path in fetched:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (partial / path).replace(target)
    shutil.rmtree(partial)


def keep_only(folder: Path, wanted: Mapping[str, FileRecord]) -> None:
    """Delete what another revision, or another program, left in a folder of ours."""
    paths = {folder / path for path in wanted}
    for found in sorted(folder.rglob("*"), reverse=True):
        if found in paths:
            continue
        if not found.is_dir() or found.is_symlink():
            found.unlink()
        elif not any(found.iterdir()):
            found.rmdir()


@contextlib.contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """What the disk refuses within the block, as one of our errors."""
    try:
        yield
    except OSError as error:
        raise (no_space(path, needed) if error.errno in FULL else not_writable(path, error)) from error
