"""Where the parts of a store lie, and which file is whose entry."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from wan_fixes.errors import EntryError
from wan_fixes.store.keys import STAMP_SECONDS
from wan_fixes.store.payload import FORMAT_VERSION

SUFFIX: Final = ".safetensors"
MANIFESTS: Final = "manifests"
KEY: Final = re.compile(r"[0-9a-f]{8,128}")
"""A key is a part of a file name, so nothing but hex digits will do."""

_VERSION_FOLDER = re.compile(r"v(\d+)")


class Layout:
    """The folders of a store of this format version, below `root`."""

    def __init__(self, root: Path) -> None:
        self.folder = root / f"v{FORMAT_VERSION}"
        self.entries = self.folder / "entries"
        self.temporary = self.folder / "tmp"
        self.quarantine = self.folder / "quarantine"
        self.making = self.folder / "making"
        self.manifests = self.folder / MANIFESTS
        self.index = self.folder / "index.sqlite"

    def make_folders(self) -> None:
        """Make what is not there. Raises OSError."""
        for folder in (self.entries, self.temporary, self.quarantine, self.making, self.manifests):
            folder.mkdir(parents=True, exist_ok=True)

    def path_of(self, key: str) -> Path:
        """The file of an entry. Raises ValueError for what is no key."""
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key: 8 to 128 lower-case hex digits")
        return self.entries / key[:2] / f"{key}{SUFFIX}"

    def key_at(self, path: Path) -> str | None:
        """The key of the entry that belongs at this path, or None where none does."""
        key = path.name.removesuffix(SUFFIX)
        return key if KEY.fullmatch(key) and path == self.path_of(key) else None

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """The bytes of the files of those of `keys` that have one."""
        by_folder: dict[str, set[str]] = {}
        for key in keys:
            by_folder.setdefault(key[:2], set()).add(key + SUFFIX)
        found: dict[str, int] = {}
        for folder, names in by_folder.items():
            with contextlib.suppress(OSError), os.scandir(self.entries / folder) as entries:
                for entry in entries:
                    if entry.name in names and entry.is_file(follow_symlinks=False):
                        found[entry.name[: -len(SUFFIX)]] = entry.stat(follow_symlinks=False).st_size
        return found

    def times(self, keys: Iterable[str]) -> dict[str, int]:
        """When a file last came into or went out of each folder of these keys (ns), where that was not just now."""
        settled = (time.time() - STAMP_SECONDS) * 1e9
        found: dict[str, int] = {}
        for folder in {key[:2] for key in keys}:
            with contextlib.suppress(OSError):
                mtime_ns = os.lstat(self.entries / folder).st_mtime_ns
                if mtime_ns < settled:
                    found[folder] = mtime_ns
        return found

    def files(self) -> Iterator[Path]:
        """Everything in the folders of the entries, in order."""
        for folder in sorted(self.entries.iterdir()):
            if not folder.is_dir():
                yield folder
                continue
            with os.scandir(folder) as found:
                names = sorted(entry.name for entry in found)
            for name in names:
                yield folder / name


def other_versions(root: Path) -> list[EntryError]:
    """Names the folders in `root` that hold a cache of another format version."""
    found = []
    for folder in sorted(root.iterdir()):
        match = _VERSION_FOLDER.fullmatch(folder.name)
        if match is None or int(match[1]) == FORMAT_VERSION or not folder.is_dir():
            continue
        found.append(
            EntryError(
                "cache has another format",
                path=folder,
                reason=f"it has format version {int(match[1])}, and this program uses version {FORMAT_VERSION}",
                fix=f"it is left alone and v{FORMAT_VERSION} is built beside it; "
                "delete it when no other version of the program needs it",
                module="store",
            )
        )
    return found
