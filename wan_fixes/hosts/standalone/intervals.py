"""Every so many batches, epochs, or minutes: when checkpoints and LoRAs are written."""

from __future__ import annotations

import time
from collections.abc import Callable

from wan_fixes.hosts.standalone.checkpoint import Progress

_SECONDS = {"SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0}


class Interval:
    """Says when it is time again.

    Parameters
    ----------
    every:
        How many of `unit` lie between two times; 0 is never.
    unit:
        OneTrainer's: EPOCH, STEP (a batch), SECOND, MINUTE, HOUR, NEVER, ALWAYS.
    start:
        Where the run begins. Batches and epochs count from the very first, so that a resumed run keeps the rhythm.
    """

    def __init__(self, every: float, unit: str, start: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._unit = unit
        self._clock = clock
        self._started = clock()
        self._passed = self._count(start)

    def is_due(self, progress: Progress) -> bool:
        """True once for each time that has come since the last call."""
        count = self._count(progress)
        if self._unit != "ALWAYS" and count <= self._passed:
            return False
        self._passed = count
        return True

    def _count(self, progress: Progress) -> int:
        """How many times have come since the very first batch, or for units of time since the start."""
        if self._unit in ("NEVER", "ALWAYS") or self._every <= 0:
            return 0
        if self._unit == "STEP":
            return int(progress.micro_step // self._every)
        if self._unit == "EPOCH":
            return int(progress.epoch // self._every)
        return int((self._clock() - self._started) // (self._every * _SECONDS[self._unit]))
