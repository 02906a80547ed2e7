"""What the decoders that stand in for PyAV have in common: errors, measured times, frames put in their places.

Theirs is the safe side: what can't be checked is refused. They find no damage, and take no whitelist of formats.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from wan_fixes.errors import SampleError
from wan_fixes.media.collector import Fit
from wan_fixes.media.colour import Orientation
from wan_fixes.media.decoders.mirroring import is_mirrored
from wan_fixes.media.diagnosis import check_regular_file
from wan_fixes.media.limits import Deadline, check_picture_size
from wan_fixes.media.opening import REENCODE
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.shape import displayed_size
from wan_fixes.media.signatures import container_of

#: Frames that are taken from a decoder at once, at their own size.
GROUP: Final = 4
#: Steps between frames may differ by this part of the usual one, or by this many seconds, before the rate counts as
#: variable (time stamps are rounded, in Matroska to 1 ms), and rates by that part of one another.
_STEP_TOLERANCE: Final = 0.1
_ROUNDING_SECONDS: Final = 0.0021
_RATE_TOLERANCE: Final = 0.002
#: Frames per second beyond which a rate is a unit of time instead (decord says 60000 of a DV file).
_FASTEST: Final = 1000.0

_UNREADABLE: Final = "clip cannot be read"
#: Endings that are names of a container to FFmpeg, besides its first name.
_OTHER_NAMES: Final = {"mov": ("mp4", "m4a", "3gp", "3g2", "mj2"), "matroska": ("webm",)}


def check_file(path: str | os.PathLike[str]) -> str:
    """FFmpeg's name of the container; raises SampleError unless it is one of those that PyAV may open.

    A playlist or script under a video's name would open other files. Refused is also what would come out mirrored.
    """
    check_regular_file(path, _UNREADABLE)
    try:
        container = container_of(path)
        mirrored = container == "mov" and is_mirrored(path)
    except OSError as error:
        raise refusal(path, f"the file system says: {error.strerror or error}") from error
    if container is None:
        raise refusal(path, "no video container that we read")
    if mirrored:
        raise refusal(path, "its picture is to be mirrored")
    suffix = Path(path).suffix.lower().lstrip(".")
    return suffix if suffix in _OTHER_NAMES.get(container, ()) else container


def url_of(path: str | os.PathLike[str]) -> str:
    """With an explicit protocol: a name such as "http:x.mp4" or "concat:a|b" stays the name of a file."""
    return "file:" + os.path.abspath(path)  # noqa: PTH100


def refusal(path: str | os.PathLike[str], reason: str) -> SampleError:
    """The error for a clip that a decoder cannot be trusted with."""
    return SampleError(_UNREADABLE, path=path, reason=reason, fix=REENCODE, module="media")


@contextmanager
def asking(library: str, path: str | os.PathLike[str], clock: Deadline) -> Iterator[None]:
    """Turn what `library` raises within into SampleError."""
    try:
        yield
    except SampleError:
        raise
    except Exception as error:  # of whatever class: AssertionError and bare Exception are among theirs
        clock.check()
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise refusal(path, f"{library} says: {words[0][:300]}") from error


def timing(path: str | os.PathLike[str], seconds: Sequence[float], promised_rate: float | None) -> dict[str, Any]:
    """The fields of VideoMetadata that follow from when each frame appears; raises SampleError for impossible times.

    `promised_rate` is the container's, in frames per second: taken where it says the same as the times, but for their
    rounding.
    """
    steps = [b - a for a, b in itertools.pairwise(seconds)]
    if not seconds or not np.isfinite(seconds).all() or (steps and min(steps) <= 0):
        raise refusal(path, "the times of its frames are not in order")
    rate = promised_rate if promised_rate is not None and 0 < promised_rate <= _FASTEST else None
    if steps:
        fps = len(steps) / (seconds[-1] - seconds[0])
    elif rate is not None:
        fps = rate
    else:
        raise refusal(path, "it holds neither times of its frames nor a frame rate")
    usual = median(steps) if steps else 1 / fps
    is_variable = any(abs(step - usual) > max(_ROUNDING_SECONDS, _STEP_TOLERANCE * usual) for step in steps)
    if rate is not None and not is_variable:
        tolerance = max(_RATE_TOLERANCE, _ROUNDING_SECONDS * fps / max(1, len(steps)))
        fps = rate if abs(rate / fps - 1) < tolerance else fps
    last = usual if is_variable else 1 / fps
    times = tuple(time - seconds[0] for time in seconds)
    return {
        "fps": fps,
        "duration": times[-1] + last,
        "frame_count": len(times),
        "frame_times": times,
        "last_frame_duration": last,
        "is_variable_rate": is_variable,
    }


def gather(
    path: str | os.PathLike[str],
    plan: FramePlan,
    pictures: Iterable[tuple[int, npt.NDArray[np.uint8]]],
    *,
    fit: Fit | None,
    pixel_aspect: Fraction,
    max_pixels: int,
) -> npt.NDArray[np.uint8]:
    """The planned ones of `pictures` as uint8 `[3, F, H, W]`, scaled and cropped one by one.

    `pictures` are (index, `[H, W, 3]` turned for display), whose pixels are `pixel_aspect` wide by high. Raises
    SampleError when one is missing.
    """
    places: dict[int, list[int]] = {}
    for place, index in enumerate(plan.indices):
        places.setdefault(index, []).append(place)
    scale = _Scaler()
    clip: npt.NDArray[np.uint8] | None = None
    for index, picture in pictures:
        wanted_at = places.pop(index, ())
        if not wanted_at:
            continue
        if clip is None:
            height, width = picture.shape[:2]
            check_picture_size(path, width, height, max_pixels)
            whole = displayed_size(width, height, pixel_aspect, Orientation())
            shown = fit or Fit(whole, (0, 0, *whole))
            top, left, height, width = shown.crop
            clip = np.empty((3, len(plan.indices), height, width), dtype=np.uint8)
        for channel in range(3):
            scaled = scale(picture[:, :, channel], shown.size)
            for place in wanted_at:
                clip[channel, place] = scaled[top : top + height, left : left + width]
        if not places:
            break
    if clip is None or places:
        missing = min(place for at in places.values() for place in at)
        raise refusal(path, f"the frame at {plan.times[missing]:.3f} s did not come")
    return clip


class _Scaler:
    """Scales a channel with swscale, as frames are scaled that PyAV decodes. A whole RGB picture would lose colour."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, channel: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        if channel.shape == size:
            return channel
        grey = av.VideoFrame.from_ndarray(np.ascontiguousarray(channel), format="gray")
        scaled: npt.NDArray[Any] = self._reformatter.reformat(grey, size[1], size[0], format="gray").to_ndarray()
        return scaled


def stand_in_warnings(library: str, unknown: str = "") -> tuple[str, ...]:
    """What a user should know of a clip that `library` serves."""
    return (
        f"read by {library}, because PyAV cannot: damage is not found, and colours of untagged HD may be off{unknown}",
    )
