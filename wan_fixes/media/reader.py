"""Reading media within limits of time, pixels and memory: in worker processes, or in this one where there are none."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from wan_fixes.errors import SampleError
from wan_fixes.media.collector import Fit, Pixels, sound
from wan_fixes.media.limits import DEADLINE_SECONDS, MAX_PIXELS
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan, ShortClips, Window
from wan_fixes.media.verdict import Verdict, rejected
from wan_fixes.media.workers.calls import CALLS
from wan_fixes.media.workers.pool import WorkerPool, WorkersUnavailableError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: MiB that reading one file may take in a worker process.
MEMORY_MB: Final = 4096

_pools: dict[tuple[int, int], WorkerPool] = {}
_pools_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaReader:
    """How files are read. Safe in threads; its worker processes are those of all readers with the same limit of memory.

    Attributes
    ----------
    deadline:
        Seconds for each step: probing, decoding, loading an image.
    max_pixels:
        Larger pictures are refused.
    memory_mb:
        Memory in MiB that reading one file may take.
    isolated:
        Read in worker processes. Without them a decoder that hangs, crashes or swells takes this process with it.
    """

    deadline: float = DEADLINE_SECONDS
    max_pixels: int = MAX_PIXELS
    memory_mb: int = MEMORY_MB
    isolated: bool = True

    def probe(self, path: str | os.PathLike[str]) -> VideoMetadata:
        """As `wan_fixes.media.probe`. Raises SampleError."""
        return self._call("probe", path, _same, deadline=self.deadline)

    def decode(
        self, path: str | os.PathLike[str], plan: FramePlan, use: Callable[[Pixels], Result], *, fit: Fit | None = None
    ) -> Result:
        """What `use` makes of `wan_fixes.media.decode_clip`'s frames, which are overwritten once it returns.

        Raises SampleError.
        """

        def use_only(results: list[Pixels | SampleError]) -> Result:
            (result,) = results
            return use(sound(result))

        return self.decode_samples(path, [(plan, fit)], use_only)

    def decode_samples(
        self,
        path: str | os.PathLike[str],
        samples: Sequence[tuple[FramePlan, Fit | None]],
        use: Callable[[list[Pixels | SampleError]], Result],
    ) -> Result:
        """What `use` makes of `wan_fixes.media.decode_samples`'s frames, which are overwritten once it returns.

        Each sample has the deadline. Raises SampleError where a worker process is lost to the file.
        """
        return self._call(
            "decode_samples", path, use, steps=len(samples), deadline=self.deadline, samples=list(samples)
        )

    def load_image(self, path: str | os.PathLike[str], use: Callable[[Pixels], Result], *, channels: int = 3) -> Result:
        """What `use` makes of `wan_fixes.media.load_image`'s pixels, which are overwritten once it returns.

        Raises SampleError.
        """
        return self._call("load_image", path, use, channels=channels)

    def inspect_video(
        self,
        path: str | os.PathLike[str],
        *,
        count: int,
        fps: float | None,
        window: Window = "centre",
        short_clips: ShortClips = "skip",
    ) -> Verdict:
        """As `wan_fixes.media.inspect_video`. Raises nothing about the file."""
        how = {"count": count, "fps": fps, "window": window, "short_clips": short_clips}
        try:
            return self._call("inspect_video", path, _same, steps=2, deadline=self.deadline, **how)
        except SampleError as error:  # a worker was lost to it
            return rejected(path, error)

    def inspect_image(self, path: str | os.PathLike[str]) -> Verdict:
        """As `wan_fixes.media.inspect_image`. Raises nothing about the file."""
        try:
            return self._call("inspect_image", path, _same)
        except SampleError as error:
            return rejected(path, error)

    def poster(self, path: str | os.PathLike[str], *, height: int = 120) -> bytes | None:
        """As `wan_fixes.media.poster`; None also where a worker process is lost to the file."""
        try:
            return self._call("poster", path, _same, height=height)
        except SampleError:
            return None

    def _call(
        self,
        call: str,
        path: str | os.PathLike[str],
        use: Callable[[Any], Result],
        *,
        steps: int = 1,
        **arguments: Any,
    ) -> Result:
        """`steps` of the call have the deadline each."""
        arguments["max_pixels"] = self.max_pixels
        if self.isolated:
            try:
                pool = _pool(self.memory_mb)
                return pool.ask(call, path, use, seconds=steps * self.deadline, **arguments)
            except WorkersUnavailableError as error:
                _warn_once(str(error))
        return use(CALLS[call](path, **arguments))


def _same(value: Any) -> Any:
    return value


def _pool(memory_mb: int) -> WorkerPool:
    key = os.getpid(), memory_mb  # a fork has no worker of its own yet
    with _pools_lock:
        if key not in _pools:
            _pools[key] = WorkerPool(memory_mb)
        return _pools[key]


_warned: set[str] = set()


def _warn_once(reason: str) -> None:
    if reason not in _warned:
        _warned.add(reason)
        logger.warning(
            "no worker process can be started (%s): a file that crashes its decoder would now end this process", reason
        )
