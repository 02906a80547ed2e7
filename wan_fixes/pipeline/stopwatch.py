"""Time spent in a module itself: modules pull from one another, so a plain clock would count the same second often."""

from __future__ import annotations

import threading
import time

_running = threading.local()


class Stopwatch:
    """Context manager that measures wall seconds, less what watches started inside it in the same thread measured."""

    __slots__ = ("_inner", "_outer", "_started", "own_seconds")

    def __init__(self) -> None:
        self.own_seconds = 0.0
        self._inner = 0.0
        self._started = 0.0
        self._outer: Stopwatch | None = None

    def __enter__(self) -> Stopwatch:
        self._outer = getattr(_running, "watch", None)
        _running.watch = self
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        elapsed = time.perf_counter() - self._started
        self.own_seconds = elapsed - self._inner
        _running.watch = self._outer
        if self._outer is not None:
            self._outer._inner += elapsed
