"""Decoding exactly the planned frames of a clip, and refusing what FFmpeg had to conceal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from wan_fixes.media.colour import rgb_conversion
from wan_fixes.media.limits import DEADLINE_SECONDS, MAX_PIXELS, Deadline, check_picture_size
from wan_fixes.media.opening import FOREIGN_ERRORS, OpenVideo, clock_of, damaged, open_video, reading
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.probe import probe
from wan_fixes.media.shape import displayed_size, pixel_aspect_of

#: Seconds before the first planned frame to which is sought. A seek that lands behind its target (MPEG-PS and TS do
#: that, and open groups of pictures have the same effect) is repeated from farther back, at last from the start.
_SEEK_MARGINS: Final = (0.0, 3.0, 15.0, None)


#: Where red, green and blue are in FFmpeg's planar RGB, "gbrp".
_PLANES: Final = (2, 0, 1)


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


def decode_frames(
    path: str | os.PathLike[str],
    plan: FramePlan,
    *,
    deadline: float = DEADLINE_SECONDS,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """`decode_clip` at the clip's own size, as `[F, H, W, 3]`: a view, its channels lie apart in memory."""
    return np.moveaxis(decode_clip(path, plan, deadline=deadline, max_pixels=max_pixels), 0, -1)


def decode_clip(
    path: str | os.PathLike[str],
    plan: FramePlan,
    *,
    fit: Fit | None = None,
    deadline: float = DEADLINE_SECONDS,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """The planned frames as uint8 `[3, F, H, W]` RGB, each exactly the one planned, as players show them.

    That is turned for display, and with square pixels. With `fit` each frame is scaled as it is converted (bilinear,
    and smoothed where it shrinks), so that no more than one frame exists in its own size: memory is that of the result.
    `deadline` is in seconds. Raises SampleError when a frame is damaged (in the window, or between the key frame and
    it: damage spreads), when one is missing, or when time is over.
    """
    if not plan.indices:
        raise ValueError("the plan is empty")
    clock = Deadline(deadline, path)
    timestamps = plan.timestamps
    if timestamps is None:
        known = probe(path, max_pixels=max_pixels, deadline=deadline).timestamps
        if known and max(plan.indices) >= len(known):
            raise damaged(path, f"it has {len(known)} frames, and frame {max(plan.indices)} is planned")
        timestamps = tuple(known[index] for index in plan.indices) if known else ()
    if not timestamps:
        return _decode_by_counting(path, plan, fit, clock, max_pixels)
    for margin in _SEEK_MARGINS:
        from_start = margin is None or plan.indices[0] == 0
        with open_video(path, clock, max_pixels) as video, reading(path, clock):
            unit = clock_of(video.stream)
            frames = _Collector(path, plan, fit, video, timestamps, unit, max_pixels)
            if margin is not None and not from_start:
                with contextlib.suppress(*FOREIGN_ERRORS):  # without an index: then from the start, where it stands
                    video.container.seek(min(timestamps) - int(margin / unit), stream=video.stream)
            try:
                for frame in _decode_span(video, timestamps, clock):
                    frames.take(frame, frame.pts)
            except _OutOfOrderError as error:
                if from_start:
                    raise damaged(path, "its frames come in another order than their times") from error
                continue
        if frames.complete() or from_start:
            break
    return frames.result()


def _decode_span(video: OpenVideo, timestamps: tuple[int, ...], clock: Deadline) -> Iterator[av.VideoFrame]:
    """Frames from a key frame at or before the first wanted one; nothing when the seek landed behind it.

    The wanted frames don't depend on packets after the last wanted one, in the file's order, so the damage of those
    doesn't matter; no more are fed than the decoder needs to tell the damage of the wanted ones.
    """
    waiting = set(timestamps)
    first_wanted = min(timestamps)
    due: set[int | None] = set()  # fed and not yet out: what the wanted frames may depend on
    last: av.Packet | None = None
    for packet in video.container.demux(video.stream):
        clock.check()
        if last is None:
            if not packet.is_keyframe:
                continue
            if packet.pts is None or packet.pts > first_wanted:
                return
        if packet.size == 0:
            break
        last = packet
        due.add(packet.pts)
        waiting.discard(packet.pts)
        for frame in video.decoder.decode(packet):
            due.discard(frame.pts)
            yield frame
        if not waiting:
            break
    if last is None:
        return
    for frame in _decode_tail(video, last):
        if frame.pts in due:
            due.discard(frame.pts)
            yield frame


def _decode_tail(video: OpenVideo, last: av.Packet) -> Iterator[av.VideoFrame]:
    """What the decoder still holds back. It is fed `last` again, of which nothing comes out that is due, for as long as
    it needs to be sure of the damage in what came before."""
    for _ in range(video.decoder.tail):
        with contextlib.suppress(*FOREIGN_ERRORS):
            yield from video.decoder.decode(last)
    yield from video.decoder.decode(None)


def _decode_by_counting(
    path: str | os.PathLike[str], plan: FramePlan, fit: Fit | None, clock: Deadline, max_pixels: int
) -> npt.NDArray[np.uint8]:
    with open_video(path, clock, max_pixels) as video, reading(path, clock):
        frames = _Collector(path, plan, fit, video, plan.indices, None, max_pixels)
        for number, frame in enumerate(video.frames()):
            clock.check()
            frames.take(frame, number)
            if number == max(plan.indices):
                break
    return frames.result()


class _OutOfOrderError(Exception):
    """Frames came in another order than their times: this was no key frame to begin at, or the times are wrong."""


class _Collector:
    """Converts the wanted frames into one array as they come, and refuses damaged ones."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: FramePlan,
        fit: Fit | None,
        video: OpenVideo,
        keys: tuple[int, ...],
        unit: Fraction | None,
        max_pixels: int,
    ) -> None:
        """`keys` tell the planned frames apart: time stamps of `unit` seconds, or counts when `unit` is None."""
        self._path = path
        self._plan = plan
        self._fit = fit
        self._pixel_aspect = pixel_aspect_of(video.stream)
        self._decoder = video.decoder
        self._first_key = keys[0]
        self._unit = unit
        self._max_pixels = max_pixels
        self._places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            self._places.setdefault(key, []).append(place)
        self._latest: int | None = None
        self._reformatter = VideoReformatter()
        self._pictures: npt.NDArray[np.uint8] | None = None

    def take(self, frame: av.VideoFrame, key: int | None) -> None:
        """Keep `frame` when `key` is wanted; raises SampleError when it is damaged, wanted or not."""
        if frame.is_corrupt:
            at = ""
            if key is not None and self._unit is not None:
                at = f" at {self._plan.times[0] + float((key - self._first_key) * self._unit):.3f} s"
            raise damaged(self._path, f"FFmpeg had to conceal errors{at}")
        if self._unit is not None and key is not None:
            if self._latest is not None and key < self._latest:
                raise _OutOfOrderError
            self._latest = key
        places = self._places.pop(key, None) if key is not None else None
        if places is None:
            return
        orientation = self._decoder.orientation_of(frame)
        if self._pictures is None:
            check_picture_size(self._path, frame.width, frame.height, self._max_pixels)
            fit = self._fit or _whole(displayed_size(frame.width, frame.height, self._pixel_aspect, orientation))
            self._size, (self._top, self._left, height, width) = fit.size, fit.crop
            self._pictures = np.empty((3, len(self._plan.indices), height, width), dtype=np.uint8)
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
        return not self._places

    def result(self) -> npt.NDArray[np.uint8]:
        """All planned frames; raises SampleError when some never came."""
        if self._places or self._pictures is None:
            missing = min(place for places in self._places.values() for place in places)
            raise damaged(self._path, f"the frame at {self._plan.times[missing]:.3f} s cannot be decoded")
        return self._pictures


def _whole(size: tuple[int, int]) -> Fit:
    return Fit(size, (0, 0, *size))
