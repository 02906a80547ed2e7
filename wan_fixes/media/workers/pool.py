"""As many worker processes as there are cores, started when they are first needed, replaced when they are lost."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from wan_fixes.errors import SampleError
from wan_fixes.media.limits import OUT_OF_MEMORY
from wan_fixes.media.opening import REENCODE
from wan_fixes.media.workers.process import BUSY, ENDED, KILLED, STALLED, SWOLLEN, WorkerLostError, WorkerProcess

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Seconds beyond its deadline after which a worker that has not answered hangs.
_GRACE_SECONDS: Final = 2.0
#: A worker can be lost by chance. A file that loses so many is the cause.
_TRIES: Final = 2
_MOST_WORKERS: Final = 16
_MEGABYTE: Final = 1 << 20
#: Reason and fix for each kind of loss.
_WORDS: Final = {
    SWOLLEN: ("reading it takes more than {memory} MB of memory", f"{REENCODE}, or raise decode_memory_mb"),
    BUSY: (
        "its decoder was still busy after {seconds:g} s, and did not stop",
        f"{REENCODE}, or raise decode_deadline_seconds",
    ),
    STALLED: (
        "the disk gave no data for {seconds:g} s",
        "check the drive or the network connection; it is tried again in the next run",
    ),
    KILLED: (
        "the system ended its decoder, most likely for want of memory",
        "close other programs, or use fewer loader threads; it is tried again in the next run",
    ),
    ENDED: ("it crashes its decoder ({loss})", REENCODE),
}


class WorkersUnavailableError(Exception):
    """No worker process can be started here."""


class WorkerPool:
    """Asks worker processes about files.

    Parameters
    ----------
    memory_mb:
        Memory that one worker may take, in MiB.
    size:
        The most workers; None: one for each core. Whoever asks when all are busy waits for one.
    """

    def __init__(self, memory_mb: int, size: int | None = None) -> None:
        self._memory_mb = memory_mb
        self._free = threading.Semaphore(size or max(2, min(_MOST_WORKERS, os.cpu_count() or 1)))
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()
        self._owner = os.getpid()
        self._closed = False
        atexit.register(self.close)

    def ask(
        self,
        call: str,
        path: str | os.PathLike[str],
        use: Callable[[Any], Result],
        *,
        seconds: float,
        **arguments: Any,
    ) -> Result:
        """What `use` makes of `call(path, **arguments)`, one of `calls.CALLS`, which may take so many seconds.

        An array in the answer lies in memory that is used again once `use` returns. Raises the SampleError that the
        call raises, one that says what became of the workers when the file loses them, and WorkersUnavailableError.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                with self._worker() as worker:
                    return use(_asked(worker, call, os.fspath(path), arguments, seconds + _GRACE_SECONDS))
            except WorkerLostError as loss:
                logger.debug("a worker was lost to %a: %s", os.fspath(path), loss)
                if attempt == _TRIES or loss.kind in (SWOLLEN, BUSY, STALLED):
                    raise self._verdict(path, loss, seconds) from loss
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._closed = True
            workers, self._all, self._idle = list(self._all), set(), []
        if os.getpid() == self._owner:  # a fork of this process has no say over them
            for worker in workers:
                worker.end()

    @contextmanager
    def _worker(self) -> Iterator[WorkerProcess]:
        with self._free:
            worker = self._taken()
            try:
                yield worker
            finally:
                with self._lock:
                    if worker.is_alive() and not self._closed:
                        self._idle.append(worker)
                    else:
                        self._all.discard(worker)

    def _taken(self) -> WorkerProcess:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive():
                    return worker
                self._all.discard(worker)
        try:
            worker = WorkerProcess(self._memory_mb * _MEGABYTE)
        except (OSError, WorkerLostError) as error:
            raise WorkersUnavailableError(str(error)) from error
        with self._lock:
            self._all.add(worker)
        return worker

    def _verdict(self, path: str | os.PathLike[str], loss: WorkerLostError, seconds: float) -> SampleError:
        reason, fix = _WORDS[loss.kind]
        context: dict[str, Any] = {"damaged": loss.kind not in (STALLED, KILLED)}
        if loss.kind in (SWOLLEN, BUSY):
            context["limits"] = f"{seconds:g} s, {self._memory_mb} MB"
        return SampleError(
            "file cannot be read",
            path=path,
            reason=reason.format(seconds=seconds, memory=self._memory_mb, loss=loss),
            fix=fix,
            module="media",
            context=context,
        )


def _asked(worker: WorkerProcess, call: str, path: str, arguments: dict[str, Any], patience: float) -> Any:
    try:
        return worker.ask(call, path, arguments, patience)
    except SampleError as error:
        if error.context.get(OUT_OF_MEMORY):  # the worker survived it; what it says of the file is the same
            raise WorkerLostError(SWOLLEN) from error
        raise
