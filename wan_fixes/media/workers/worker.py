"""What a worker process runs: questions from its standard input, one at a time, answers to its standard output."""

from __future__ import annotations

import faulthandler
import gc
import os
import queue
import sys
import threading
from typing import Any, Final

import numpy as np

from wan_fixes.errors import SampleError
from wan_fixes.media.workers import wire
from wan_fixes.media.workers.arena import Arena
from wan_fixes.media.workers.calls import CALLS
from wan_fixes.media.workers.shared_buffer import SharedBuffer

READY: Final = "ready"
#: Seconds beyond the parent's own patience after which a worker that the parent has forgotten ends itself.
_FORGOTTEN_SECONDS: Final = 5.0


def main(handle: str, memory_bytes: int) -> None:
    """Serve until the standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print as well
    _limit_memory(memory_bytes)
    buffer = SharedBuffer.attach(handle)
    questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    wire.send(answers, READY)
    gc.freeze()
    while True:
        question = questions.get()
        faulthandler.dump_traceback_later(question["patience"] + _FORGOTTEN_SECONDS, exit=True)
        answer = _answer(question, buffer)
        faulthandler.cancel_dump_traceback_later()
        wire.send(answers, answer)
        # Frames in cycles are few objects to the collector, and much memory to the system.
        del question, answer
        gc.collect()


def _listen(questions: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Beside the work, so that the process ends with its parent whatever it is doing."""
    while True:
        try:
            questions.put(wire.receive(sys.stdin.buffer))
        except EOFError:
            os._exit(0)


def _answer(question: dict[str, Any], buffer: SharedBuffer) -> Any:
    call, arguments = question["call"], question["arguments"]
    arena = Arena(buffer)
    if call == "decode_samples":
        arguments["allocate"] = arena.allocator(arguments["samples"])
    try:
        result = CALLS[call](question["path"], **arguments)
    except SampleError as error:
        return {"error": error}
    if isinstance(result, bytes):
        return {"bytes": arena.parts([np.frombuffer(result, np.uint8)])}
    if isinstance(result, np.ndarray):
        return {"array": arena.parts([result])}
    if isinstance(result, list):
        return {"arrays": arena.parts(result)}
    return {"value": result}


def _limit_memory(count: int) -> None:
    """Where the system can (Linux): the parent looks only every so often, and memory is quickly taken.

    Never above the limits that this process was started with.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    now, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (min(limit for limit in (count, now, most) if limit >= 0), most))
