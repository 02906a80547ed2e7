"""Work in a pipeline's threads: bounded in memory, and stopped at once by Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Started jobs per thread: enough that no thread waits, few enough that an interruption has little to wait for.
JOBS_PER_THREAD = 2


def fan_out(
    executor: Executor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    at_once: int | None = None,
    stopped: threading.Event | None = None,
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Run `work` on each item; yields the item and its finished future as they finish.

    `at_once` lowers how many run at the same time; None: as many as the executor has threads. When the caller stops
    early (an exception, Ctrl-C) what has not begun is cancelled, and what has is waited for; `stopped` is set before,
    so that work in several steps can leave off between two of them.
    """
    waiting = iter(items)
    pending: dict[Future[Result], Item] = {}
    threads = getattr(executor, "_max_workers", 4)
    width = at_once if at_once is not None and at_once < threads else threads * JOBS_PER_THREAD
    try:
        while True:
            pending |= {executor.submit(work, item): item for item in islice(waiting, width - len(pending))}
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future
    finally:
        if stopped is not None:
            stopped.set()
        for future in pending:
            future.cancel()
        wait(pending)
