"""Files that several models share take their place on the disk once."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wan_fixes.models.installed import Verified
from wan_fixes.models.layout import ModelResolver, model_folder_name
from wan_fixes.models.linking import share
from wan_fixes.models.locks import LockManager
from wan_fixes.models.nearby import SMALLEST_SHARED, model_folders
from wan_fixes.models.publishing import disk_errors
from wan_fixes.models.records import sha256_of


@dataclass(frozen=True)
class Duplicate:
    """A file that is there twice: `path` can become another name of `same_as`.

    Attributes
    ----------
    size:
        Bytes that are free then.
    folder:
        Of the model that `path` is in.
    """

    path: Path
    same_as: Path
    size: int
    sha256: str
    folder: Path


def find_duplicates(resolver: ModelResolver) -> list[Duplicate]:
    """Files of complete models with the same content that are not yet the same file. Nothing is read but records."""
    by_content: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for folder in model_folders(resolver.root):
        verified = Verified.read(folder)
        for name in () if verified is None else verified.files:
            record = None if verified is None else verified.right(folder, name)
            if record is not None and record.size >= SMALLEST_SHARED and not (folder / name).is_symlink():
                by_content[record.sha256].append((folder / name, folder))
    found = []
    for sha256, files in by_content.items():
        first, _ = files[0]
        for path, folder in files[1:]:
            if not path.samefile(first):
                found.append(Duplicate(path, first, path.stat().st_size, sha256, folder))
    return found


def reference_count(path: Path) -> int:
    """How many models have this file. The file system counts."""
    return path.stat().st_nlink


def remove_duplicates(
    duplicates: list[Duplicate], locks: LockManager, on_done: Callable[[int], None] = lambda _: None
) -> list[Duplicate]:
    """Make of each duplicate another name of the file that it is the same as; returns those where that was possible.

    The file that stays is read first: a spoilt one must not take the place of a sound one. Raises ModelError where the
    disk refuses.
    """
    sound: dict[Path, bool] = {}
    done = []
    for number, one in enumerate(duplicates, 1):
        with locks.hold(model_folder_name(one.folder)), disk_errors(one.path):
            if one.same_as not in sound:
                sound[one.same_as] = one.same_as.is_file() and sha256_of(one.same_as) == one.sha256
            if sound[one.same_as] and _link(one):
                done.append(one)
        on_done(number)
    return done


def _link(one: Duplicate) -> bool:
    verified = Verified.read(one.folder)
    name = one.path.relative_to(one.folder).as_posix()
    record = None if verified is None else verified.right(one.folder, name)
    if verified is None or record is None or record.sha256 != one.sha256:
        return False  # it was changed meanwhile
    temporary = one.path.with_name(f"{uuid.uuid4().hex}.tmp")
    if not share(one.same_as, temporary):
        return False
    try:
        temporary.replace(one.path)
    finally:
        temporary.unlink(missing_ok=True)
    files = {**verified.files, name: replace(record, mtime_ns=one.path.stat().st_mtime_ns)}
    replace(verified, files=files).write(one.folder)
    return True
