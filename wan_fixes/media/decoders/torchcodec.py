"""torchcodec, where PyAV cannot read a file: it uses the FFmpeg that the system has. Imports torch, so only when asked.

Its index of frames counts some that never come (MPEG-PS, AVI with B-frames, open groups cut by an edit list), and its
seeks land beside the wanted frame in some files. So probing decodes the clip once, and takes what came; decoding
compares the time stamps that come with those, and starts from the first frame where they differ.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wan_fixes.media.collector import Fit
from wan_fixes.media.colour import Orientation
from wan_fixes.media.decoders import foreign
from wan_fixes.media.limits import Deadline, check_picture_size
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.shape import displayed_size

NAME: Final = "torchcodec"
#: Time stamps are kept in this part of a second: torchcodec gives them as float seconds.
_TICKS: Final = 1_000_000
#: Frames are decoded this small to learn their times: converting them is most of the work.
_SMALL: Final = (16, 16)


@functools.cache
def _library() -> Any:
    """The module `torchcodec.decoders`, or None: it is there, but raises, where FFmpeg's libraries are missing."""
    if importlib.util.find_spec("torchcodec") is None:
        return None
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        return None


def is_available() -> bool:
    """Whether torchcodec and the system's FFmpeg are there, in versions that go together."""
    return _library() is not None


def probe(path: str | os.PathLike[str], *, max_pixels: int, deadline: float) -> VideoMetadata:
    """Decodes the whole clip once, at a small size."""
    clock = Deadline(deadline, path)
    container = foreign.check_file(path)
    with foreign.asking(NAME, path, clock):
        facts = _open(path, max_pixels).metadata
        first = _open(path, max_pixels).get_frame_at(0).data
        if tuple(first.shape[:2]) != (facts.height, facts.width):
            raise foreign.refusal(
                path, f"torchcodec delivers another size than the {facts.width}x{facts.height} it says"
            )
        seconds = _times(_open(path, max_pixels, small=True), clock)
        turned = _clockwise_degrees(facts)
        height, width = displayed_size(facts.width, facts.height, _pixel_aspect(facts), Orientation())
    return VideoMetadata(
        width=width,
        height=height,
        format=container,
        codec=facts.codec or "",
        is_corrupted=False,
        error_details=None,
        rotation=turned,
        pixel_format=facts.pixel_format or "",
        warnings=foreign.stand_in_warnings(NAME),
        path=os.fspath(path),
        timestamps=tuple(round(second * _TICKS) for second in seconds),
        decoder=NAME,
        **foreign.timing(path, seconds, facts.average_fps_from_header),
    )


def decode(
    path: str | os.PathLike[str], plan: FramePlan, *, fit: Fit | None, deadline: float, max_pixels: int
) -> npt.NDArray[np.uint8]:
    """Seeks, or decodes from the first frame on where a seek went wrong. Four frames at once have their own size."""
    clock = Deadline(deadline, path)
    foreign.check_file(path)
    stamps = plan.timestamps
    if stamps is None:
        known = probe(path, max_pixels=max_pixels, deadline=deadline).timestamps
        if max(plan.indices) >= len(known):
            raise foreign.refusal(path, f"it has {len(known)} frames, and frame {max(plan.indices)} is planned")
        stamps = tuple(known[index] for index in plan.indices)
    wanted = dict(zip(plan.indices, stamps, strict=True))
    with foreign.asking(NAME, path, clock):
        pixel_aspect = _pixel_aspect(_open(path, max_pixels).metadata)
        for pictures in (_sought, _from_the_start):
            delivered = pictures(_open(path, max_pixels), wanted, clock)
            try:
                return foreign.gather(path, plan, delivered, fit=fit, pixel_aspect=pixel_aspect, max_pixels=max_pixels)
            except _OtherFrameError:
                continue
    raise foreign.refusal(path, "torchcodec does not deliver the planned frames: the file changed")


class _OtherFrameError(Exception):
    """A frame came that is not the planned one."""


def _sought(decoder: Any, wanted: dict[int, int], clock: Deadline) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    indices = sorted(wanted)
    for start in range(0, len(indices), foreign.GROUP):
        clock.check()
        group = indices[start : start + foreign.GROUP]
        try:
            batch = decoder.get_frames_at(group)
        except (RuntimeError, IndexError) as error:
            raise _OtherFrameError from error
        yield from _checked(group, batch, wanted)


def _from_the_start(
    decoder: Any, wanted: dict[int, int], clock: Deadline
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    last = max(wanted)
    for start in range(0, last + 1, foreign.GROUP):
        clock.check()
        stop = min(start + foreign.GROUP, last + 1)
        yield from _checked(range(start, stop), decoder.get_frames_in_range(start, stop), wanted)


def _checked(indices: Any, batch: Any, wanted: dict[int, int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    for index, picture, seconds in zip(indices, batch.data, batch.pts_seconds.tolist(), strict=True):
        if index in wanted:
            if abs(round(seconds * _TICKS) - wanted[index]) > 1:
                raise _OtherFrameError
            yield index, picture.numpy()


def _open(path: str | os.PathLike[str], max_pixels: int, *, small: bool = False) -> Any:
    """Opening reads every packet. Raises SampleError for pictures that are too large."""
    resize = [importlib.import_module("torchcodec.transforms").Resize(_SMALL)] if small else None
    decoder = _library().VideoDecoder(
        foreign.url_of(path), dimension_order="NHWC", num_ffmpeg_threads=0, device="cpu", transforms=resize
    )
    check_picture_size(path, decoder.metadata.width, decoder.metadata.height, max_pixels)
    return decoder


def _times(decoder: Any, clock: Deadline) -> list[float]:
    """When each frame is shown, in the container's seconds. Raises RuntimeError when fewer come than it promises."""
    seconds: list[float] = []
    for start in range(0, len(decoder), foreign.GROUP):
        clock.check()
        stop = min(start + foreign.GROUP, len(decoder))
        seconds += decoder.get_frames_in_range(start, stop).pts_seconds.tolist()
    return seconds


def _clockwise_degrees(facts: Any) -> int:
    return round(-(facts.rotation or 0)) % 360


def _pixel_aspect(facts: Any) -> Fraction:
    """Width by height of a pixel as delivered, that is, turned."""
    stored = Fraction(facts.pixel_aspect_ratio or 1)
    return 1 / stored if _clockwise_degrees(facts) in (90, 270) else stored
