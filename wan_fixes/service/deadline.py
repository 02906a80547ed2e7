"""Work that may hang, with a time after which it is not waited for: a look at a network drive that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


class OverdueError(Exception):
    """It took too long. The thread goes on, and is counted until it ends."""


class Deadline:
    """Runs functions in threads that keep no process from ending.

    Parameters
    ----------
    seconds:
        How long one is waited for, with the time until its turn.
    at_once:
        Threads at most; those that hang stay counted, so that requests to a dead drive do not pile up threads.
    """

    def __init__(self, seconds: float, at_once: int = 8) -> None:
        self.seconds = seconds
        self.at_once = at_once
        self._free = asyncio.Semaphore(at_once)

    async def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns. Raises what it raises, and OverdueError."""
        try:
            return await asyncio.wait_for(self._in_turn(work), self.seconds)
        except asyncio.TimeoutError as error:
            raise OverdueError from error

    async def _in_turn(self, work: Callable[[], Result]) -> Result:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        outcome: Future[Result] = Future()
        outcome.set_running_or_notify_cancel()  # whoever stops waiting does not make it undone

        def do() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                outcome.set_exception(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a turn
                loop.call_soon_threadsafe(self._free.release)

        threading.Thread(target=do, name="wan-serve-look", daemon=True).start()
        return await asyncio.wrap_future(outcome)
