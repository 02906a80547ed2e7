"""Collecting the planned frames of one sample while a clip is decoded: each is scaled into its place in one array."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from wan_fixes.errors import SampleError
from wan_fixes.media.colour import rgb_conversion
from wan_fixes.media.limits import check_picture_size
from wan_fixes.media.opening import OpenVideo, damaged
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.shape import displayed_size, pixel_aspect_of

#: Where red, green and blue are in FFmpeg's planar RGB, "gbrp".
_PLANES: Final = (2, 0, 1)

Pixels: TypeAlias = npt.NDArray[np.uint8]
Allocate: TypeAlias = Callable[[tuple[int, ...]], Pixels]


def new_array(shape: tuple[int, ...]) -> Pixels:
    """An uint8 array in this process's memory, not filled."""
    return np.empty(shape, dtype=np.uint8)


def sound(result: Pixels | SampleError) -> Pixels:
    """The frames of a sample; raises the error that came in their place."""
    if isinstance(result, SampleError):
        raise result
    return result


@dataclass(frozen=True)
class Fit:
    """The size in which a clip is delivered: scaled as a whole, and a part of that."""

    #: Height and width in pixels to which the displayed picture is scaled.
    size: tuple[int, int]
    #: Top, left, height and width of the part, in pixels of the scaled picture.
    crop: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        top, left, height, width = self.crop
        inside = top >= 0 and left >= 0 and top + height <= self.size[0] and left + width <= self.size[1]
        if not inside or height < 1 or width < 1:
            raise ValueError(f"{self.crop = } is no part of {self.size = }")


class OutOfOrderError(Exception):
    """Frames came in another order than their times: this was no key frame to begin at, or the times are wrong."""


class Collector:
    """Converts the wanted frames of one sample into one array as they come, and refuses damaged ones."""

    def __init__(
        self, path: str | os.PathLike[str], plan: FramePlan, fit: Fit | None, max_pixels: int, allocate: Allocate
    ) -> None:
        self.plan = plan
        #: Time stamps of the planned frames; empty where they are counted, None where that isn't known yet.
        self.keys = plan.timestamps
        #: Among the shown frames of the clip.
        self.first, self.last = min(plan.indices), max(plan.indices)
        #: Whether the result is certain, if only that a frame is missing.
        self.is_done = False
        #: Why there is no result.
        self.failure: SampleError | None = None
        self._path = path
        self._fit = fit
        self._max_pixels = max_pixels
        self._allocate = allocate
        self._pictures: Pixels | None = None
        # By key of a frame that has not come yet, where it goes: at first all of them.
        self._places: dict[int, list[int]] = {0: [0]}
        self._unfed: set[int] = set()
        self._due: set[int | None] = set()

    @property
    def first_key(self) -> int:
        """The time stamp of the first planned frame of the clip."""
        assert self.keys, "counted frames have no time stamps"
        return min(self.keys)

    def begin(self, video: OpenVideo, unit: Fraction | None) -> None:
        """Wait for all frames, from `video`: by time stamps of `unit` seconds, or counted when that is None."""
        keys = self.plan.indices if unit is None else self.keys or ()
        self._pixel_aspect = pixel_aspect_of(video.stream)
        self._decoder = video.decoder
        self._first_planned = keys[0]
        self._unit = unit
        self._places = {}
        for place, key in enumerate(keys):
            self._places.setdefault(key, []).append(place)
        self._unfed = set() if unit is None else set(keys)
        self._due = set()  # fed before the last wanted one, and not yet out: what the wanted frames may depend on
        self._latest: int | None = None
        self._reformatter = VideoReformatter()
        self._is_begun = False

    def was_fed(self, key: int | None) -> bool:
        """Note that the decoder was given the packet of `key`; whether packets of wanted frames are still to come."""
        self._due.add(key)
        self._unfed.discard(key)
        return bool(self._unfed)

    def take(self, frame: av.VideoFrame, key: int | None) -> None:
        """Keep `frame` when `key` is wanted; raises SampleError when it is damaged, wanted or not."""
        if self.is_settled():
            return
        if frame.is_corrupt:
            at = ""
            if key is not None and self._unit is not None:
                at = f" at {self.plan.times[0] + float((key - self._first_planned) * self._unit):.3f} s"
            where = self._decoder.place_of(key) if self._unit is not None else ""
            raise damaged(self._path, f"FFmpeg had to conceal errors{at}{where}")
        if self._unit is not None and key is not None:
            if self._latest is not None and key < self._latest:
                raise OutOfOrderError
            self._latest = key
        if key is not None and key in self._places:
            self._keep(frame, self._places[key])
            del self._places[key]
        self._due.discard(key)

    def _keep(self, frame: av.VideoFrame, places: list[int]) -> None:
        orientation = self._decoder.orientation_of(frame)
        if not self._is_begun:
            check_picture_size(self._path, frame.width, frame.height, self._max_pixels)
            fit = self._fit or _whole(displayed_size(frame.width, frame.height, self._pixel_aspect, orientation))
            self._size, (self._top, self._left, height, width) = fit.size, fit.crop
            shape = (3, len(self.plan.indices), height, width)
            if self._pictures is None or self._pictures.shape != shape:  # else that of an earlier attempt
                self._pictures = self._allocate(shape)
            self._is_begun = True
        assert self._pictures is not None, "the first frame makes room for all"
        # A clip that changes its size midway is scaled to the first size, as players do.
        height, width = self._size[::-1] if orientation.swaps_sides else self._size
        rgb = self._reformatter.reformat(frame, width, height, **rgb_conversion(frame))
        for channel, plane in zip(self._pictures, (rgb.planes[number] for number in _PLANES), strict=True):
            rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(height, plane.line_size)
            picture = orientation.apply(rows[:, :width])
            for place in places:
                shown = channel[place]
                shown[:] = picture[self._top : self._top + shown.shape[0], self._left : self._left + shown.shape[1]]

    def complete(self) -> bool:
        """Whether every planned frame has come."""
        return not self._places

    def is_settled(self) -> bool:
        """Whether nothing that is still to come can change the result."""
        return not self._places and not self._unfed and not self._due

    def result(self) -> Pixels | SampleError:
        """All planned frames, or why they are not there."""
        if self.failure is not None:
            return self.failure
        if self._places or self._pictures is None:
            missing = min(place for places in self._places.values() for place in places)
            return damaged(self._path, f"the frame at {self.plan.times[missing]:.3f} s cannot be decoded")
        return self._pictures


def _whole(size: tuple[int, int]) -> Fit:
    return Fit(size, (0, 0, *size))
