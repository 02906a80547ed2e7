"""Work that blocks, awaited: in a thread of its own, and stopped when whoever waits is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from wan_fixes.models.failures import ErrorCode, ModelError

Result = TypeVar("Result")


async def in_thread(work: Callable[[threading.Event], Result]) -> Result:
    """What `work` returns. When this is cancelled, the event is set, and the end of the work is waited for.

    So no lock is held, and nothing written, once `CancelledError` has arrived. A second cancellation waits no longer.
    """
    stop = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        # Cancelled again, or stopped by an error, what it came to is nobody's concern.
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([running])
        raise


def stop_if_set(stop: threading.Event) -> None:
    """Raise ModelError (STOPPED) when the event is set: for callbacks of work that takes no event."""
    if stop.is_set():
        raise ModelError(ErrorCode.STOPPED, "the work was stopped", reason="as it was asked to", fix="run it again")
