"""Several models one after another, or some at once, that share one limit of speed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress


@dataclass(frozen=True)
class Outcome:
    """How one model of a queue ended: with its folder, or with what stands in the way."""

    name: str
    folder: Path | None
    error: ModelError | None


def ensure_all(
    ensurer: ModelEnsurer,
    names: Sequence[str],
    *,
    at_once: int = 1,
    lock_timeout: float | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_wait: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Outcome]:
    """Ensure each of these models, `at_once` at a time; one that cannot be had does not keep the others waiting.

    Names are looked up before anything is fetched: raises ModelError for an unknown one.
    """
    for name in names:
        ensurer.target(name)
    stop = stop or threading.Event()

    def ensure(name: str) -> Outcome:
        try:
            folder = ensurer.ensure(
                name, lock_timeout=lock_timeout, on_progress=on_progress, on_wait=on_wait, stop=stop, is_opened=False
            )
        except ModelError as error:
            if error.code in (ErrorCode.NO_SPACE, ErrorCode.NOT_WRITABLE):
                stop.set()  # the next ones would fail of the same
            return Outcome(name, None, error)
        return Outcome(name, folder, None)

    executor = ThreadPoolExecutor(at_once, thread_name_prefix="models-queue")
    try:
        return list(executor.map(ensure, names))
    except BaseException:
        stop.set()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
