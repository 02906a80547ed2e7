"""Processes that may be killed, forked from one that has imported everything: that takes seconds, and a fork none."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def environment() -> dict[str, str]:
    """For a child process that imports from the tests."""
    tests = Path(__file__).resolve().parent.parent
    paths = os.pathsep.join([str(tests), str(tests.parent), str(tests.parent / "examples"), *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


class Nursery:
    """A process without threads, which forks a child for each piece of work."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.nursery"], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._children: set[int] = set()

    def start(self, work: Callable[..., None], *arguments: Any) -> int:
        """Have a child call `work`, a function of a module; its process id, which is its own until its outcome."""
        pid = self._ask((work, arguments))
        self._children.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """End a child at once."""
        os.kill(pid, signal.SIGKILL)

    def outcome(self, pid: int) -> int:
        """Wait until a child has ended: 0 when its work is done, 1 when it raised, -9 when it was killed."""
        self._children.remove(pid)
        return self._ask(pid)

    def close(self) -> None:
        """End what is left."""
        for pid in self._children:
            self.kill(pid)
        self._process.kill()
        self._process.communicate()

    def _ask(self, order: Any) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump(order, self._process.stdin)
        self._process.stdin.flush()
        answer: int = pickle.load(self._process.stdout)
        return answer


def serve() -> None:
    """Take orders until there are no more: work for a child, or the process id of one to wait for."""
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a child says is no answer
    while orders.peek(1):
        order = pickle.load(orders)
        if isinstance(order, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(order, 0)[1])
        else:
            gc.freeze()  # else a child that collects garbage copies every page that it looks at
            answer = os.fork()
            if answer == 0:
                run(*order)
        pickle.dump(answer, answers)
        answers.flush()


def run(work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    serve()
