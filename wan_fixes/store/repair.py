"""Mending a store at once, where training would do so piece by piece."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wan_fixes.errors import EntryError
from wan_fixes.store.samples import SampleStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Entries that went to quarantine, files that were left alone; how many old indexes and damaged lists of samples were
    deleted.
    """

    discarded: tuple[EntryError, ...]
    left: tuple[EntryError, ...]
    old_indexes: int
    lists: int


def repair(store: SampleStore, on_progress: Callable[[int], None] = lambda _: None) -> Repaired:
    """Verify all, discard what is damaged or foreign, make the index anew, delete what was set aside or is made again.

    What bears no entry's name is left alone, and named. `on_progress` is called with how many files are verified.
    """
    discarded: list[EntryError] = []
    left: list[EntryError] = []
    lists: list[Path] = []
    for problem in store.verify(on_progress):
        path = Path(problem.path or "")
        if path.parent == store.manifests_folder:
            lists.append(path)
            continue
        key = store.key_at(path)
        if key is None:
            left.append(problem)
        elif os.path.lexists(path):  # if not, only its row is there, which goes with the index
            store.discard(key, problem.reason)
            discarded.append(problem)
    store.rebuild_index()
    old_indexes = [path for path in store.folder.glob("index.sqlite*.set-aside-*") if path.is_file()]
    gone = [len([path for path in paths if _removed(path)]) for paths in (old_indexes, lists)]
    return Repaired(tuple(discarded), tuple(left), *gone)


def _removed(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # open in another program, on Windows
        logger.warning("%s cannot be deleted: %s", path, error)
        return False
    return True
