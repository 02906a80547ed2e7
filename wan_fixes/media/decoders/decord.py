"""decord (the package decord2), where neither PyAV nor torchcodec can read a file. It brings an FFmpeg of its own.

Its seeks land up to dozens of frames beside the wanted one, and nothing that comes tells so: every clip is decoded from
its first frame on. It doesn't say what shape pixels have, nor which codec it decodes. Some files make it abort its
process, so it gets one of its own for each call.
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
from wan_fixes.media.decoders import apart, foreign
from wan_fixes.media.limits import Deadline, check_picture_size
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan

NAME: Final = "decord"
#: The part of a clip's frames that decord may make up from their neighbours: none.
_NO_REPEATS: Final = 1e-9
_SMALL: Final = {"width": 16, "height": 16}
#: Pictures with fewer pixels a side come out dark.
_LEAST_SIDE: Final = 16
#: Seconds by which a frame may be elsewhere than planned: decord gives float32.
_TIME_TOLERANCE: Final = 0.002


@functools.cache
def _library() -> Any:
    library = importlib.import_module("decord")
    library.logging.set_level(library.logging.QUIET)  # of its own FFmpeg, not of ours
    return library


def is_available() -> bool:
    """Whether decord or decord2 is installed."""
    return importlib.util.find_spec("decord") is not None


def probe(path: str | os.PathLike[str], *, max_pixels: int, deadline: float) -> VideoMetadata:
    """Decodes the whole clip once, at a small size; refuses it when not as many frames come as were promised."""
    container = foreign.check_file(path)
    with foreign.asking(NAME, path, Deadline(deadline, path)):
        height, width, seconds, rate = apart.call("decord_measure", path, deadline, max_pixels=max_pixels)
    return VideoMetadata(
        width=width,
        height=height,
        format=container,
        codec="",
        is_corrupted=False,
        error_details=None,
        warnings=foreign.stand_in_warnings(NAME, "; its pixels are taken as square"),
        path=os.fspath(path),
        decoder=NAME,
        **foreign.timing(path, seconds, rate),
    )


def decode(
    path: str | os.PathLike[str], plan: FramePlan, *, fit: Fit | None, deadline: float, max_pixels: int
) -> npt.NDArray[np.uint8]:
    """Decodes from the first frame to the last planned one. One frame at a time exists in its own size."""
    foreign.check_file(path)
    with foreign.asking(NAME, path, Deadline(deadline, path)):
        clip: npt.NDArray[np.uint8] = apart.call(
            "decord_deliver", path, deadline, plan=plan, fit=fit, max_pixels=max_pixels
        )
    return clip


def measure(path: str, *, deadline: float, max_pixels: int) -> tuple[int, int, list[float], float]:
    """In a process apart: height, width, the time of each frame, and the frame rate that decord says."""
    clock = Deadline(deadline, path)
    with foreign.asking(NAME, path, clock):
        height, width = _array(_open(path).next()).shape[:2]
        check_picture_size(path, width, height, max_pixels)
        if min(height, width) < _LEAST_SIDE:
            raise foreign.refusal(path, f"decord shows pictures of {width}x{height} too dark")
        reader = _open(path, **_SMALL)
        came = sum(1 for _ in _frames(reader, clock))
        if came != len(reader):
            raise foreign.refusal(path, f"decord promises {len(reader)} frames and delivers {came}")
        seconds = reader.get_frame_timestamp(range(came))[:, 0].tolist()
        return height, width, seconds, float(reader.get_avg_fps())


def deliver(path: str, *, plan: FramePlan, fit: Fit | None, deadline: float, max_pixels: int) -> npt.NDArray[np.uint8]:
    """In a process apart: as `decode`."""
    clock = Deadline(deadline, path)
    with foreign.asking(NAME, path, clock):
        reader = _open(path)
        _check_times(path, plan, reader)
        wanted = set(plan.indices)
        pictures = ((index, _array(frame)) for index, frame in enumerate(_frames(reader, clock)) if index in wanted)
        return foreign.gather(path, plan, pictures, fit=fit, pixel_aspect=Fraction(1), max_pixels=max_pixels)


def _check_times(path: str | os.PathLike[str], plan: FramePlan, reader: Any) -> None:
    if max(plan.indices) >= len(reader):
        raise foreign.refusal(path, f"it has {len(reader)} frames, and frame {max(plan.indices)} is planned")
    seconds = reader.get_frame_timestamp([0, *plan.indices])[:, 0].tolist()
    if any(abs(at - seconds[0] - time) > _TIME_TOLERANCE for at, time in zip(seconds[1:], plan.times, strict=True)):
        raise foreign.refusal(path, "its frames are at other times than planned: the file changed")


def _open(path: str | os.PathLike[str], **size: int) -> Any:
    return _library().VideoReader(foreign.url_of(path), fault_tol=_NO_REPEATS, **size)


def _frames(reader: Any, clock: Deadline) -> Iterator[Any]:
    while True:
        clock.check()
        try:
            frame = reader.next()
        except StopIteration:
            return
        yield frame


def _array(frame: Any) -> npt.NDArray[np.uint8]:
    """A frame as `[H, W, 3]`, also where somebody had decord make tensors of another library.

    decord divides the bytes of a row by the width to know the channels. FFmpeg pads rows, with AVX-512 widely, and a
    narrow picture seems to have a fourth one: the padding, all of it after the row's pixels.
    """
    array = np.asarray(frame.asnumpy() if hasattr(frame, "asnumpy") else frame)
    height, width, channels = array.shape
    return array.reshape(height, width * channels)[:, : 3 * width].reshape(height, width, 3)
