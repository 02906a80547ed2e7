"""What was fetched takes the model's place: all at once, or file by file where there was something before."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import REMOVING_NAME, VERIFIED_NAME, Verified
from wan_fixes.models.layout import no_space, not_writable
from wan_fixes.models.listing import Listing
from wan_fixes.models.names import ModelName
from wan_fixes.models.records import FileRecord
from wan_fixes.store.atomic import FULL, replace_patiently


def publish(
    name: ModelName,
    listing: Listing,
    partial: Path,
    folder: Path,
    fetched: Mapping[str, FileRecord],
    right: Mapping[str, FileRecord],
    check: Callable[[Path], None] = lambda _: None,
) -> None:
    """Move the `fetched` files to `folder`, where those that are `right` already stay, and write down all of them.

    `check` looks at the folder with all of them, and raises what speaks against it. Raises ModelError. The folder
    counts as complete when this returns, and never before.
    """
    with disk_errors(folder):
        is_new = not folder.exists()
        if is_new:
            check(partial)
        if fetched:
            _move(partial, folder, fetched)
        if not is_new:
            (folder / VERIFIED_NAME).unlink(missing_ok=True)
            check(folder)
        (folder / REMOVING_NAME).unlink(missing_ok=True)
    files = {**right, **fetched}
    for path, record in files.items():
        if not record.is_as(folder / path):
            raise ModelError(
                ErrorCode.CHECKSUM_FAIL,
                "a file was changed while others were fetched",
                path=folder / path,
                reason="its size or time is another than when its digest was taken",
                fix="run it again: it is looked at anew",
            )
    Verified.now(name, listing, files).write(folder)


def _move(partial: Path, folder: Path, fetched: Mapping[str, FileRecord]) -> None:
    (folder / VERIFIED_NAME).unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        keep_only(partial, fetched)
        replace_patiently(partial, folder)
        return
    for path in fetched:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_patiently(partial / path, target)
    shutil.rmtree(partial)


def keep_only(folder: Path, wanted: Mapping[str, FileRecord]) -> None:
    """Delete what another revision, or another program, left in a folder of ours."""
    paths = {folder / path for path in wanted}
    for found in list(folder.rglob("*")):
        if found not in paths and (found.is_symlink() or not found.is_dir()):
            found.unlink()
    remove_empty_folders(folder)


def remove_empty_folders(folder: Path) -> None:
    """Remove the folders below one that hold nothing, the innermost first."""
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """What the disk refuses within the block, as one of our errors."""
    try:
        yield
    except OSError as error:
        raise (no_space(path, needed) if error.errno in FULL else not_writable(path, error)) from error
