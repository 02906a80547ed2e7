"""Sources that just failed are left alone for a while, as long as another one can be asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from wan_fixes.models.failures import ModelError

REST_SECONDS: Final = 60.0


class RestingSources:
    """A negative cache in memory: which source failed, how, and until when it is not asked.

    Parameters
    ----------
    seconds:
        How long one rests, unless it said itself when to come back.
    """

    def __init__(self, seconds: float = REST_SECONDS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: dict[str, tuple[float, ModelError]] = {}
        self._lock = threading.Lock()

    def failed(self, label: str, error: ModelError) -> None:
        """Let a source rest."""
        with self._lock:
            self._until[label] = self._clock() + (error.retry_after or self._seconds), error

    def worked(self, label: str) -> None:
        """Forget that it failed."""
        with self._lock:
            self._until.pop(label, None)

    def why(self, label: str) -> ModelError | None:
        """How it failed, while it rests; None when it may be asked."""
        with self._lock:
            until, error = self._until.get(label, (0.0, None))
            if error is not None and self._clock() >= until:
                del self._until[label]
                return None
            return error
