"""A limit to how much is read in a second, by all connections together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """A token bucket of one second: at most `bytes_per_second` on average; 0 is no limit.

    https://en.wikipedia.org/wiki/Token_bucket
    """

    def __init__(
        self,
        bytes_per_second: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = bytes_per_second
        self._then = clock()

    def take(self, count: int, stop: threading.Event | None = None) -> None:
        """Wait until `count` bytes may have been read, or `stop` is set."""
        if self._rate <= 0:
            return
        with self._lock:
            now = self._clock()
            # A clock that is set back gives nothing, and takes nothing.
            self._tokens = min(self._rate, self._tokens + max(0.0, now - self._then) * self._rate) - count
            self._then = now
            debt = -self._tokens
        if debt > 0:
            (self._sleep if stop is None else stop.wait)(debt / self._rate)
