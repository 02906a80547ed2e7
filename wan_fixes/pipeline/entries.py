"""The entries of one cache: made, written, read, and made again when they are found damaged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from wan_fixes.errors import CriticalError, EntryError, SampleError
from wan_fixes.pipeline.cache_stats import CacheCounts
from wan_fixes.pipeline.checks import problem_with
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.pixels import memory_for
from wan_fixes.store import SampleStore
from wan_fixes.store.atomic import DISK_FULL

logger = logging.getLogger(__name__)

# From so many damaged entries on, and such a share of those that were asked for, the drive may be failing.
MANY_DAMAGED = 5
MANY_DAMAGED_SHARE = 0.01


class Entries:
    """Safe to use from several threads.

    Parameters
    ----------
    read_item:
        Makes an item of a sample: (variation, name, index) -> value. Raises ``SampleError``.
    path_of:
        The file of a sample, or None where there is none.
    owner:
        What the cache is called in messages.

    Attributes
    ----------
    without_room:
        Keys of what is not cached because the disk is full, and the settings say to go on.
    bytes_written:
        By this process.
    """

    def __init__(
        self,
        store: SampleStore,
        context: PipelineContext,
        read_item: Callable[[int, str, int], Any],
        path_of: Callable[[int], str | None],
        owner: str,
    ) -> None:
        self._store = store
        self._context = context
        self._read_item = read_item
        self._path_of = path_of
        self._owner = owner
        self._folder = str(store.root.parent)
        self._lock = threading.Lock()
        self.counts = CacheCounts()
        self.without_room: set[str] = set()
        self.bytes_written = 0

    def make(self, key: str, index: int, variation: int, names: list[str], patience: float) -> bool:
        """Encode `names` of a sample and write them; False when another process still does after `patience` seconds."""
        with memory_for(self._path_of(index)), self._store.making(key, patience) as is_ours:
            if not is_ours:
                return self._store.contains(key)
            if not self.without_room:
                self._write(key, self.encode(index, variation, names), index)
            else:
                self.without_room.add(key)
        return True

    def encode(self, index: int, variation: int, names: list[str]) -> dict[str, Any]:
        """What the modules before make of a sample. Raises ``SampleError``, also for what no entry may hold."""
        with torch.no_grad():
            item = {name: self._read_item(variation, name, index) for name in names}
        problem = problem_in(item, names)
        if problem is not None:
            raise SampleError(
                "a sample was encoded into something unusable",
                path=self._path_of(index),
                reason=problem,
                fix="check the clip; if it plays, the encoder's precision may be too low for it (try float 32)",
                module=self._owner,
            )
        return item

    def read(self, key: str, index: int, variation: int, names: list[str]) -> dict[str, Any]:
        """The entry, in the middle of an epoch: made now when it is not there, or damaged."""
        started = time.perf_counter()
        try:
            item = self._store.get(key)
        except KeyError:
            return self._make_now(key, index, variation, names)
        except EntryError as error:
            logger.warning("%s", error)
            self.set_aside(key)
            return self._make_now(key, index, variation, names)
        seconds = time.perf_counter() - started
        self.counts.was_read(seconds)
        self._context.metrics.time(self._owner, seconds)
        return item

    def set_aside(self, key: str) -> None:
        """Take a damaged entry out: it is made again when it is next needed. Raises ValueError for what is no key."""
        self._store.discard(key, "found damaged")
        self._context.event("cache_corruption", f"cache entry {key} is damaged: it is made again", key=key)
        self._found_damaged(1)

    def present(self, keys: list[str]) -> dict[str, str]:
        """The plain values, as JSON, of those that the store has; what is not sound is set aside, and counted."""
        before = self._store.discarded
        there = self._store.present(keys)
        if self._store.discarded > before:
            self._found_damaged(self._store.discarded - before)
        return there

    def _found_damaged(self, count: int) -> None:
        """Count entries that were set aside, and say so when they are more than a mishap here and there."""
        self._context.metrics.count("cache_corruptions", count)
        damaged, asked = self.counts.found_damaged(count)
        if damaged >= MANY_DAMAGED and damaged >= MANY_DAMAGED_SHARE * asked:
            self._context.warn(
                self._folder,
                "many entries of the cache are damaged: they are made again",
                "check the drive that the cache is on; `wan cache verify` names what else is damaged",
                self._owner,
            )

    def _write(self, key: str, item: dict[str, Any], index: int) -> None:
        try:
            size = self._store.put(key, item)
        except (TypeError, ValueError) as error:
            raise SampleError(
                "a sample cannot be stored",
                path=self._path_of(index),
                reason=str(error),
                fix="please report this with the model type",
                module=self._owner,
            ) from error
        except CriticalError as error:
            if DISK_FULL not in error.context or self._context.settings.full_disk == "stop":
                raise
            self.without_room.add(key)
            self._context.warn(
                error.path or self._folder,
                f"not all samples are cached: {error.reason}; the others are encoded anew each time",
                error.fix,
                self._owner,
            )
        else:
            with self._lock:
                self.bytes_written += size
            self._context.metrics.count("cache_written")
            self._context.metrics.count("cache_bytes_written", size)

    def _make_now(self, key: str, index: int, variation: int, names: list[str]) -> dict[str, Any]:
        """Encode in the middle of an epoch. A cache that can no longer be written does not end it."""
        item = self.encode(index, variation, names)
        try:
            self._write(key, item, index)
        except CriticalError as error:
            where = error.path or self._folder
            self._context.warn(where, f"a sample is not cached: {error.reason}", error.fix, self._owner)
        return item


def problem_in(item: dict[str, Any], names: list[str]) -> str | None:
    """Why an entry may not hold this; None when every name is there, and no value is None, NaN or infinite."""
    for name in names:
        if name not in item:
            return f"'{name}' is missing"
        problem = problem_with(item[name])
        if problem is not None:
            return f"'{name}' {problem}"
    return None
