"""Which entries can go: by age, by size, by need. Planned first, so that it can be shown, and then removed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wan_fixes.errors import UserError
from wan_fixes.store.index import KEYS_PER_QUERY, Usage
from wan_fixes.store.samples import SampleStore

logger = logging.getLogger(__name__)

Reason = Literal["age", "size", "unneeded", "quarantined"]

# Of a file that `SampleStore.discard` moved aside: its key, and when that was (ns).
_ASIDE = re.compile(r"[0-9a-f]{2,128}\.(?P<moment>\d{1,19})(\.safetensors)?")


@dataclass(frozen=True)
class Removable:
    """An entry, or a quarantined file, that can go.

    store:
        The store that it lies in.
    name:
        The entry's key, or the file's name in the quarantine folder.
    last_used:
        Seconds since the epoch; of a quarantined file when it was set aside.
    reason:
        ``age``: not used for too long; ``size``: the least recently used of too many; ``unneeded``: no latest start
        needed it; ``quarantined``: set aside too long ago.
    """

    store: SampleStore
    name: str
    bytes: int
    last_used: float
    reason: Reason


def plan_removal(
    stores: Sequence[SampleStore],
    *,
    older_than: float | None = None,
    max_bytes: int | None = None,
    unneeded: bool = False,
) -> list[Removable]:
    """What can go of these stores, each for the first reason that holds. Removes nothing.

    Parameters
    ----------
    older_than:
        What was not used for so many seconds, and files that are in quarantine for longer.
    max_bytes:
        The least recently used go, whatever store they are in, until the entries of all stores take no more.
    unneeded:
        What the latest start of no training needed, as far as starts were noted.

    Raises UserError when `unneeded` is asked of a store in which no start was noted.
    """
    planned: list[Removable] = []
    staying: list[Removable] = []
    latest = None if older_than is None else time.time() - older_than
    for store in stores:
        usages = store.usage()
        if unneeded and usages and not store.knows_needs():
            raise UserError(
                "it is not known which entries are needed",
                path=store.root,
                reason="no training has noted it since this cache's index exists",
                fix="start a training, or `wan cache build PRESET`, once for each preset that uses this cache",
            )
        for usage in usages:
            reason: Reason = "age" if latest is not None and usage.last_used < latest else "unneeded"
            goes = reason == "age" or (unneeded and not usage.needed)
            (planned if goes else staying).append(Removable(store, usage.key, usage.size, usage.last_used, reason))
        if latest is not None:
            planned += _quarantined(store, latest)
    if max_bytes is not None:
        planned += _too_much(staying, max_bytes)
    return planned


def remove(planned: Sequence[Removable], on_progress: Callable[[int], None] | None = None) -> int:
    """Remove what was planned; returns the bytes freed. What was used, or came to be needed, meanwhile stays.

    `on_progress` is called with how many are done.
    """
    freed = done = 0
    for store in dict.fromkeys(removable.store for removable in planned):
        of_store = [removable for removable in planned if removable.store is store]
        entries = [removable for removable in of_store if removable.reason != "quarantined"]
        for start in range(0, len(entries), KEYS_PER_QUERY):
            part = entries[start : start + KEYS_PER_QUERY]
            now = {usage.key: usage for usage in store.usage([removable.name for removable in part])}
            freed += store.remove([removable.name for removable in part if _still_goes(removable, now)])
            done += len(part)
            if on_progress is not None:
                on_progress(done)
        aside = [removable for removable in of_store if removable.reason == "quarantined"]
        freed += sum(_delete(store.quarantine_folder / removable.name) for removable in aside)
        done += len(aside)
        if on_progress is not None:
            on_progress(done)
    return freed


def _still_goes(removable: Removable, now: Mapping[str, Usage]) -> bool:
    usage = now.get(removable.name)
    if usage is None or usage.last_used != removable.last_used:
        return False
    return not (removable.reason == "unneeded" and usage.needed)


def _too_much(staying: list[Removable], max_bytes: int) -> Iterator[Removable]:
    left = sum(removable.bytes for removable in staying)
    for removable in sorted(staying, key=lambda removable: (removable.last_used, removable.name)):
        if left <= max_bytes:
            return
        left -= removable.bytes
        yield Removable(removable.store, removable.name, removable.bytes, removable.last_used, "size")


def _quarantined(store: SampleStore, latest: float) -> Iterator[Removable]:
    """Files only, and only those that the store itself has named."""
    with os.scandir(store.quarantine_folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        match = _ASIDE.fullmatch(entry.name)
        if match is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            state = entry.stat(follow_symlinks=False)
            moment = int(match["moment"]) / 1e9
            if stat.S_ISREG(state.st_mode) and moment < latest:
                yield Removable(store, entry.name, state.st_size, moment, "quarantined")


def _delete(path: Path) -> int:
    try:
        size = path.lstat().st_size
        path.unlink()
    except OSError as error:
        logger.warning("%s cannot be deleted: %s", path, error)
        return 0
    return size
