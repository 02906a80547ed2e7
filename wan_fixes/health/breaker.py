"""A circuit breaker: a module that fails too often is left alone for a while, then tried once.

Source of the state machine: M. Nygard, "Release It!", 2nd edition, chapter 5; the share of failures is taken over a
sliding window of calls.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]
_WINDOW_PER_MINIMUM = 5  # the window holds this many times the smallest number of calls that says something


class CircuitBreaker:
    """Closed: calls pass. Open: none does. Half open: one call passes, and its outcome decides.

    Opens when, among the latest calls, at least `min_calls` of them, the share of failures exceeds `threshold`. After
    `cooldown_seconds` it is half open. A trial call that reports nothing within another cooldown counts as lost,
    and the next call is let through. Safe to use from several threads.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        min_calls: int = 10,
        cooldown_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._min_calls = min_calls
        self._cooldown_seconds = cooldown_seconds
        self._clock = clock
        self._failed: deque[bool] = deque(maxlen=min_calls * _WINDOW_PER_MINIMUM)
        self._opened_at: float | None = None
        self._trial_since: float | None = None
        self._disabled = False
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """`closed`, `open` or `half_open` at this moment."""
        with self._lock:
            return self._state(self._clock())

    def allow(self) -> bool:
        """Whether a call may go ahead now. In the half-open state a True takes the one trial."""
        with self._lock:
            now = self._clock()
            state = self._state(now)
            if state != "half_open":
                return state == "closed"
            if self._trial_since is not None and now - self._trial_since < self._cooldown_seconds:
                return False
            self._trial_since = now
            return True

    def give_back_trial(self) -> None:
        """The call that `allow` let through never got so far as to say anything: the next one may be the trial."""
        with self._lock:
            self._trial_since = None

    def record_success(self) -> bool:
        """A call went well. In the half-open state this closes the breaker and forgets what was.

        Returns True when this opened the breaker: the call may be the one that makes up `min_calls`.
        """
        return self._record(failed=False)

    def record_failure(self) -> bool:
        """A call failed. Returns True when this opened the breaker (again)."""
        return self._record(failed=True)

    def disable(self) -> None:
        """Let no call through any more, whatever the outcomes and however long ago."""
        with self._lock:
            self._disabled = True

    def _record(self, failed: bool) -> bool:
        with self._lock:
            now = self._clock()
            state = self._state(now)
            if state == "open":
                return False  # the late answer of a call that began before; it says nothing about now
            if state == "half_open" and not failed:
                self._opened_at = self._trial_since = None
                self._failed.clear()
                return False
            self._failed.append(failed)
            if state == "closed" and not self._too_many_failures():
                return False
            self._opened_at = now
            self._trial_since = None
            return True

    def _too_many_failures(self) -> bool:
        calls = len(self._failed)
        return calls >= self._min_calls and sum(self._failed) > self._threshold * calls

    def _state(self, now: float) -> State:
        if self._disabled:
            return "open"
        if self._opened_at is None:
            return "closed"
        return "open" if now - self._opened_at < self._cooldown_seconds else "half_open"
