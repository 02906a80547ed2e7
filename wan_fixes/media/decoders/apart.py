"""Calling a decoder in a process of its own: one that crashes, or hangs, takes only that with it."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from typing import Any, Final

from wan_fixes.errors import SampleError
from wan_fixes.media.limits import Deadline

#: Seconds that starting Python and loading a decoder may take beyond the deadline for the file.
_START_SECONDS: Final = 15.0
_PROGRAM: Final = "from wan_fixes.media.decoders.apart import _serve; _serve()"


class DecoderCrashedError(RuntimeError):
    """The process ended without an answer."""


def call(module: str, function: str, path: str | os.PathLike[str], deadline: float, **arguments: Any) -> Any:
    """`function(path, deadline=deadline, **arguments)` of `module`; raises what that raises.

    Raises SampleError when it takes longer than `deadline` seconds and the start, DecoderCrashedError when the process
    is gone.
    """
    clock = Deadline(deadline, path)
    question = pickle.dumps((module, function, os.fspath(path), {"deadline": deadline, **arguments}))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=question,
            capture_output=True,
            env=environment,
            timeout=max(0.0, deadline) + _START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        clock.check()
        raise
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        raise DecoderCrashedError(f"its process ended with code {done.returncode}: {last[0].strip()}")
    answer = pickle.loads(done.stdout)  # noqa: S301 - from our own child
    if isinstance(answer, SampleError):
        raise answer
    return answer


def _serve() -> None:
    """What the process does: one question from the standard input, one answer to the standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print as well
    module, function, path, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    try:
        answer = getattr(importlib.import_module(module), function)(path, **arguments)
    except SampleError as error:
        answer = error
    with answers:
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
