"""What lies on a store's disk: the rows that its index should have, and everything that is not as it should be."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from wan_fixes.errors import EntryError
from wan_fixes.store.index import Discarded, Row
from wan_fixes.store.layout import SUFFIX, Layout
from wan_fixes.store.manifest import unsound_manifests
from wan_fixes.store.payload import open_entry, read_header, verify_data

logger = logging.getLogger(__name__)


def row_of(path: Path, state: os.stat_result, checksum: str, values_json: str) -> Row:
    """The index's row of the entry at `path`."""
    key = path.name.removesuffix(SUFFIX)
    file = f"{path.parent.name}/{path.name}"
    return Row(key, file, state.st_size, state.st_mtime_ns, checksum, values_json, state.st_mtime_ns / 1e9)


def rows_on_disk(layout: Layout) -> Iterator[Row]:
    """The rows of all entries with a sound header."""
    for path in layout.files():
        key = layout.key_at(path)
        if key is None:
            continue
        try:
            with open_entry(path) as file:
                header = read_header(file, path, key)
                state = os.fstat(file.fileno())
        except (EntryError, FileNotFoundError) as error:
            logger.warning("not indexed: %s", error)
            continue
        yield row_of(path, state, header.checksum, header.values_json)


def discarded_on_disk(layout: Layout) -> Iterator[Discarded]:
    """What was set aside, as far as the files tell."""
    for path in sorted(layout.quarantine.iterdir()):
        yield Discarded(path.name.split(".")[0], path.name, "not known: the index was made anew", time.time())


def problems_on_disk(layout: Layout, keys: Iterable[str], on_progress: Callable[[int], None]) -> list[EntryError]:
    """Read every entry, compare every checksum; what is damaged, foreign, or missing of `keys`. Changes nothing.

    `on_progress` is called with how many files are done.
    """
    problems: list[EntryError] = []
    for done, path in enumerate(layout.files(), start=1):
        key = layout.key_at(path)
        if key is None:
            problems.append(_problem(path, "it was not written by this program", "delete it, or move it away"))
            continue
        with contextlib.suppress(FileNotFoundError):  # discarded by another process just now
            try:
                with open_entry(path) as file:
                    verify_data(file, path, read_header(file, path, key))
            except EntryError as error:
                problems.append(error)
        on_progress(done)
    for path in map(layout.path_of, keys):
        if not path.exists():
            problems.append(_problem(path, "its file is gone", "it is made again by itself"))
    for path in unsound_manifests(layout.manifests):
        fix = "it is made again by itself; where the clips are not here, import the cache again"
        problems.append(_problem(path, "this list of samples is damaged", fix))
    return problems


def _problem(path: Path, reason: str, fix: str) -> EntryError:
    return EntryError("cache entry cannot be used", path=path, reason=reason, fix=fix, module="store")
