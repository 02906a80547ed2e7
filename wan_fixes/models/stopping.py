"""Work that somebody may end: it looks now and then whether to, and ends in an error that says so."""

from __future__ import annotations

import threading

from wan_fixes.models.failures import ErrorCode, ModelError


def stopped(what: str = "fetching was stopped") -> ModelError:
    """What is said then."""
    return ModelError(
        ErrorCode.STOPPED,
        what,
        reason="as it was asked to",
        fix="run it again: it goes on where it was",
    )


def check_stop(stop: threading.Event | None) -> None:
    """Raise ModelError once it is to end."""
    if stop is not None and stop.is_set():
        raise stopped()
