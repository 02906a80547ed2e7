"""What a cache did: counted while it works, told in the terms of the seed document."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wan_fixes.store import StoreStats


@dataclass(slots=True)
class CacheStats:
    """What a cache did, in the terms of the seed document.

    Attributes
    ----------
    hit_rate, miss_rate:
        Share of the samples asked for at the start of epochs that were, and were not, there. 0 before the first.
    corruption_count:
        Entries found damaged or foreign.
    total_items:
        Entries in the store.
    cache_size_mb:
        Their size in 10^6 bytes.
    avg_access_time:
        Seconds per read of an entry.
    """

    hit_rate: float
    miss_rate: float
    corruption_count: int
    total_items: int
    cache_size_mb: float
    avg_access_time: float


class CacheCounts:
    """Counts of one cache in one process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits = self._misses = self._corrupt = self._reads = 0
        self._read_seconds = 0.0

    def asked(self, hits: int, misses: int) -> None:
        """Note how many samples were there when an epoch began, and how many were not."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def found_damaged(self, count: int = 1) -> tuple[int, int]:
        """Note entries that were set aside; returns how many there were by now, and how many were asked for."""
        with self._lock:
            self._corrupt += count
            return self._corrupt, self._hits + self._misses

    def was_read(self, seconds: float) -> None:
        """Note one read and how long it took."""
        with self._lock:
            self._reads += 1
            self._read_seconds += seconds

    def stats(self, store: StoreStats) -> CacheStats:
        """The counts, with what the store holds."""
        with self._lock:
            asked = self._hits + self._misses
            return CacheStats(
                hit_rate=self._hits / asked if asked else 0.0,
                miss_rate=self._misses / asked if asked else 0.0,
                corruption_count=self._corrupt,
                total_items=store.entries,
                cache_size_mb=store.bytes / 1e6,
                avg_access_time=self._read_seconds / self._reads if self._reads else 0.0,
            )
