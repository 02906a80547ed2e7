"""What a case of the corpus is: a file that makes itself, and what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from painted import read_frame_number

#: Width and height of the clips, frames per second and number of frames, where a case says nothing else.
SIZE = (112, 80)
RATE = 25
FRAMES = 36

Reader = Callable[[np.ndarray], "int | None"]


@dataclass(frozen=True, kw_only=True)
class Serves:
    """A clip that must be used, to the frame."""

    #: What is painted into each shown frame, in order.
    numbers: tuple[int, ...] = tuple(range(FRAMES))
    #: Width and height as displayed.
    size: tuple[int, int] = SIZE
    #: Frames per second; of a clip of variable rate the mean. None where the file doesn't tell.
    rate: float | None = RATE
    #: When each frame is shown, in seconds from the first; None for a constant rate.
    times: tuple[float, ...] | None = None
    #: Part of the one warning that must be given; no other may be.
    warning: str = ""
    #: Other facts that the probe must find, by the names of `VideoMetadata`.
    facts: dict[str, object] = field(default_factory=dict)
    read: Reader = read_frame_number

    def frame_times(self) -> tuple[float, ...] | None:
        """When each frame is shown, in seconds from the first; None where the file doesn't tell."""
        if self.times is not None or self.rate is None:
            return self.times
        return tuple(place / self.rate for place in range(len(self.numbers)))


@dataclass(frozen=True, kw_only=True)
class Begins:
    """A clip of which the end is lost: what is there must be used, and a warning say that it isn't all."""

    #: At least so many frames, from the first. With 0 there may be nothing to use.
    at_least: int
    of: tuple[int, ...] = tuple(range(FRAMES))
    #: Whether the container tells that something is missing.
    warning: bool = True


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A file that nothing can be made of."""

    #: Parts of the reason and of what to do.
    reason: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Either:
    """A clip with damage that may be found or pass as harmless: each frame that is delivered must be its own."""

    rate: float = RATE
    #: The codec has no check sums, and some of the damage decodes without an error under every setting of FFmpeg: a
    #: frame may be spoilt beyond reading, but not be another.
    may_be_spoilt: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image that must be used."""

    number: int | None = 77
    size: tuple[int, int] = SIZE


Truth = Serves | Begins | Rejected | Either | Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One file of the corpus."""

    name: str
    #: What the file is called.
    file: str
    #: Writes the file. Its folder is its own.
    make: Callable[[Path], object]
    truth: Truth
    #: FFmpeg's name of the encoder that making it takes; cases without theirs are left out.
    encoder: str = ""
    #: Why it cannot be made on this machine, if so.
    impossible: str = ""

    def __str__(self) -> str:
        return self.name
