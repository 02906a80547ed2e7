"""One worker process, as its parent sees it: asked, waited for, watched, and ended when it goes wrong."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import psutil

import wan_fixes
from wan_fixes.errors import SampleError
from wan_fixes.media.workers import wire
from wan_fixes.media.workers.arena import opened
from wan_fixes.media.workers.shared_buffer import SharedBuffer

#: Seconds that the start may take: Python and FFmpeg's libraries from a slow disk.
_START_SECONDS: Final = 60.0
#: Between two looks at a worker's memory, in seconds.
_LOOK_SECONDS: Final = 0.1
#: A worker that used less of a processor than this share in these last seconds was waiting, not working.
_IDLE_SHARE: Final = 0.05
_LAST_SECONDS: Final = 1.5

#: What this process finds modules by comes last: a script's folder may hold files that are named as Python's own.
_PROGRAM: Final = """
import sys
sys.path += [folder for folder in sys.argv[3:] if folder not in sys.path]
from wan_fixes.media.workers.worker import main
main(sys.argv[1], int(sys.argv[2]))
"""


class WorkerLostError(Exception):
    """The worker is gone: it ended by itself, or was ended. `kind` says why."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail or kind)
        self.kind = kind


#: Kinds of loss: it ended; was it killed from outside; it took too much memory; it was busy, or waited, for too long.
ENDED, KILLED, SWOLLEN, BUSY, STALLED = "ended", "killed", "swollen", "busy", "stalled"


class WorkerProcess:
    """Starts a worker. Raises OSError when it can't be started, WorkerLostError when it doesn't become ready."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self.buffer = SharedBuffer.create()
        descriptors = () if self.buffer.descriptor is None else (self.buffer.descriptor,)
        more: dict[str, Any] = {"pass_fds": descriptors}
        if sys.platform == "win32":
            more = {"creationflags": subprocess.CREATE_NO_WINDOW}
        root = str(Path(wan_fixes.__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-c",
                _PROGRAM,
                self.buffer.handle,
                str(memory_bytes),
                root,
                *filter(None, sys.path),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **more,
        )
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._await(_START_SECONDS)
        except BaseException:
            self.end()
            raise

    def ask(self, call: str, path: str, arguments: dict[str, Any], patience: float) -> Any:
        """What one of `calls.CALLS` returns or raises, within `patience` seconds; arrays lie in the buffer.

        Raises WorkerLostError; the worker has then ended.
        """
        assert self._process.stdin is not None
        question = {"call": call, "path": path, "arguments": arguments, "patience": patience}
        try:
            with contextlib.suppress(OSError):  # it has ended: waiting for the answer tells why
                wire.send(self._process.stdin, question)
            answer = self._await(patience)
        except BaseException:  # interrupted, it would answer the next question with this one's answer
            self.end()
            raise
        return self._opened(answer)

    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process at once; the buffer goes with it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self.buffer.close()

    def _await(self, patience: float) -> Any:
        end = time.monotonic() + patience
        used = 0.0
        while True:
            try:
                answer = self._answers.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._memory() > self._memory_bytes:
                    raise WorkerLostError(SWOLLEN) from None
                left = end - time.monotonic()
                if left < 0:
                    is_busy = self._cpu_seconds() - used > _IDLE_SHARE * _LAST_SECONDS
                    raise WorkerLostError(BUSY if is_busy else STALLED) from None
                if left > _LAST_SECONDS:
                    used = self._cpu_seconds()
            else:
                if isinstance(answer, EOFError):
                    raise self._how_it_ended()
                return answer

    def _opened(self, answer: dict[str, Any]) -> Any:
        if "error" in answer:
            raise answer["error"]
        if "arrays" in answer:
            return opened(answer["arrays"], self.buffer)
        if "array" in answer:
            return opened(answer["array"], self.buffer)[0]
        if "bytes" in answer:
            (data,) = opened(answer["bytes"], self.buffer)
            assert not isinstance(data, SampleError), "bytes are no sample that could fail"
            return data.tobytes()
        return answer["value"]

    def _how_it_ended(self) -> WorkerLostError:
        code = self._process.wait()
        # By SIGKILL the system ends processes when its own memory is short, and people do so by hand.
        return WorkerLostError(KILLED if code == -9 else ENDED, f"code {code}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                self._answers.put(wire.receive(self._process.stdout))
        except (EOFError, OSError, ValueError):
            self._answers.put(EOFError())

    def _cpu_seconds(self) -> float:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self._process.pid).cpu_times()
            return times.user + times.system
        return 0.0

    def _memory(self) -> int:
        """Bytes that the process has for itself; the shared buffer counts too, as far as it was touched."""
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0
