"""Calling a decoder in a worker process of its own: one that crashes, or hangs, takes only that with it."""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
import psutil

from wan_fixes.media.limits import Deadline

#: Seconds that loading a decoder may take beyond the deadline for the file.
_LOADING_SECONDS: Final = 15.0


class DecoderCrashedError(RuntimeError):
    """The process ended without an answer."""


def call(name: str, path: str | os.PathLike[str], deadline: float, **arguments: Any) -> Any:
    """What `workers.calls.CALLS[name]` returns or raises, with `deadline` in seconds among its arguments.

    Raises SampleError when it takes longer than the deadline and the loading, DecoderCrashedError when the process
    is gone.
    """
    # Not above: what workers can be asked for includes the decoders, of which this is a part.
    from wan_fixes.media.workers.process import WorkerLostError, WorkerProcess

    clock = Deadline(deadline, path)
    try:
        # The limit of memory is that of the process that asks, which is a worker too.
        worker = WorkerProcess(psutil.virtual_memory().total)
        try:
            patience = deadline + _LOADING_SECONDS
            answer = worker.ask(name, os.fspath(path), {"deadline": deadline, **arguments}, patience)
            return answer.copy() if isinstance(answer, np.ndarray) else answer
        finally:
            worker.end()
    except WorkerLostError as loss:
        clock.check()
        raise DecoderCrashedError(f"its process ended with {loss}") from loss
