"""How long a file may take and how large a picture may be."""

from __future__ import annotations

import errno
import os
import time
from typing import Final

from wan_fixes.errors import SampleError

#: Pictures with more pixels than this are refused before memory is taken for them.
MAX_PIXELS: Final = 8192 * 8192
#: Seconds that reading one file may take, unless the caller says otherwise.
DEADLINE_SECONDS: Final = 10.0
#: These errors hang on the settings and the machine: the file itself is not to be remembered as damaged.
_NOT_ITS_FAULT: Final = {"damaged": False}


#: In the context of an error: memory was not enough.
OUT_OF_MEMORY: Final = "out_of_memory"


class Deadline:
    """A span of time that starts now; `check` raises once it is over."""

    def __init__(self, seconds: float, path: str | os.PathLike[str]) -> None:
        self._seconds = seconds
        self._path = path
        self._end = time.monotonic() + seconds

    def within(self, seconds: float) -> Deadline:
        """A deadline of its own for a part of the work, which ends with this one at the latest."""
        part = Deadline(seconds, self._path)
        part._end = min(part._end, self._end)
        return part

    def remaining(self) -> float:
        """Seconds left, never below a millisecond (to FFmpeg a time-out of 0 or less means none)."""
        return max(0.001, self._end - time.monotonic())

    def check(self) -> None:
        """Raise SampleError when the time is over."""
        if time.monotonic() > self._end:
            raise SampleError(
                "clip cannot be read",
                path=self._path,
                reason=f"reading it took longer than {self._seconds:g} s",
                fix="cut it into shorter clips, move it to a faster disk, or raise decode_deadline_seconds",
                module="media",
                context=_NOT_ITS_FAULT,
            )


def check_picture_size(path: str | os.PathLike[str], width: int, height: int, max_pixels: int) -> None:
    """Raise SampleError when a picture of `width` by `height` pixels is larger than `max_pixels`."""
    if width * height > max_pixels:
        raise SampleError(
            "picture is too large",
            path=path,
            reason=f"{width}x{height} pixels, more than the limit of {max_pixels}",
            fix="scale it down, or raise max_pixels_per_frame",
            module="media",
            context=_NOT_ITS_FAULT,
        )


def check_memory(path: str | os.PathLike[str], error: BaseException) -> None:
    """Raise SampleError when `error`, which reading `path` raised, says that memory was not enough."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        raise SampleError(
            "file cannot be read",
            path=path,
            reason="there was not enough memory to read it",
            fix="close other programs, use fewer loader threads, or scale it down",
            module="media",
            context={**_NOT_ITS_FAULT, OUT_OF_MEMORY: True},
        ) from error
