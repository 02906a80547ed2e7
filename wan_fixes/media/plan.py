"""Planning: which frames of a clip make a sample of so many frames at such a rate."""

from __future__ import annotations

import bisect
import math
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from wan_fixes.errors import SampleError
from wan_fixes.media.metadata import VideoMetadata

#: A frame that appears this part of the clip's frame length after the wanted time is taken as being there: time
#: stamps are rounded (to 1 ms in Matroska). Small enough to tell 25 from 24 frames per second.
_SLACK_IN_FRAMES: Final = 0.02
_LEAST_SLACK_SECONDS: Final = 0.0011
#: WAN takes 4n + 1 frames.
_FRAMES_PER_LATENT: Final = 4
#: Film and video for NTSC run 1000/1001 of the rate that they are named by (23.976, 29.97, 59.94).
_NTSC: Final = 1000 / 1001


@dataclass(frozen=True)
class FramePlan:
    """Which frames to deliver, in order; a frame can occur more than once."""

    #: When each is shown, in seconds from the first shown frame.
    times: tuple[float, ...]
    #: Its index among the shown frames.
    indices: tuple[int, ...]
    #: Its time stamp in the container; empty when frames must be counted, None when not known (decoding probes).
    timestamps: tuple[int, ...] | None = None
    #: Which decoder delivers them: as `VideoMetadata.decoder`.
    decoder: str = "pyav"


Window = Literal["random", "start", "centre", "spread", "chunks"]
ShortClips = Literal["skip", "pad", "loop"]


def plan_frames(
    metadata: VideoMetadata,
    *,
    count: int,
    fps: float | None,
    rng: random.Random | None = None,
    window: Window = "random",
    short_clips: ShortClips = "skip",
    chunk: int = 0,
) -> FramePlan:
    """Choose `count` frames at `fps` frames per second (None: every frame of the clip, as they come).

    The window starts at a frame drawn by `rng` (in the middle when that is None), at the first, or lies in the middle;
    or the frames are spread evenly from the first to the last, whatever `fps` says; or it is one of the `count_chunks`
    windows that follow one another from the first frame on, number `chunk` (from 0). Each planned frame is the one on
    screen at its time, so a slow clip repeats frames and a fast one leaves some out; at the clip's own rate the frames
    are consecutive. An NTSC clip is sampled at the NTSC sibling of `fps` (23.976 for 24): 0.1 % slower beats a
    repeated frame. Of a clip that is too short, the last frame is held ("pad") or the first comes again ("loop").

    Raises SampleError when the clip is too short and `short_clips` is "skip", or has no such chunk, ValueError when
    `count` or `fps` isn't positive.
    """
    _check(count, fps)
    times = metadata.frame_times
    if len(times) < 2 and count > 1:
        raise SampleError(
            "clip cannot be used",
            path=metadata.path or None,
            reason="holds one frame only",
            fix="use it as an image, or replace it by a video",
            module="media",
        )
    if window == "chunks" and chunk > 0:
        return _later_chunk(metadata, chunk, count, fps)
    if window == "spread" and len(times) >= count > 1:
        return _plan(metadata, (round(place * (len(times) - 1) / (count - 1)) for place in range(count)))
    if fps is None:
        starts = len(times) - count + 1
        if starts < 1:
            held = _held_out(metadata, range(count), short_clips)
            if held is None:
                raise _too_short(metadata, len(times), None, count)
            return held
        start = _choose(starts, rng, window)
        return _plan(metadata, range(start, start + count))

    rate = _rate(metadata, fps)
    slack = _slack(metadata)
    end = _end(metadata)
    # The last of the frames must still be on screen at its time.
    latest_start = end - (count - 1) / rate - slack
    starts = bisect.bisect_right(times, latest_start)
    if starts < 1:
        cycle = end if short_clips == "loop" else math.inf
        passing = ((step / rate + slack) % cycle for step in range(count))
        held = _held_out(metadata, (bisect.bisect_right(times, time) - 1 for time in passing), short_clips)
        if held is None:
            raise _too_short(metadata, math.ceil((end - slack) * rate), fps, count)
        return held
    first = times[_choose(starts, rng, window)]
    wanted = (first + step / rate + slack for step in range(count))
    return _plan(metadata, (bisect.bisect_right(times, time) - 1 for time in wanted))


def count_chunks(metadata: VideoMetadata, *, count: int, fps: float | None) -> int:
    """How many whole windows of `count` frames at `fps` follow one another in a clip; 1 for one that is shorter.

    Raises ValueError when `count` or `fps` isn't positive.
    """
    _check(count, fps)
    return max(1, _held(metadata, fps) // count)


def _later_chunk(metadata: VideoMetadata, chunk: int, count: int, fps: float | None) -> FramePlan:
    """The frames follow those of the chunk before, on the same clock: that of the clip's first frame."""
    if chunk >= count_chunks(metadata, count=count, fps=fps):
        at_rate = "" if fps is None else f" at {fps:g} fps"
        raise SampleError(
            "clip has become shorter",
            path=os.fspath(metadata.path) or None,
            reason=f"{_held(metadata, fps)} frames{at_rate}, {(chunk + 1) * count} needed for its chunk {chunk + 1}",
            fix="start again, so that its chunks are counted anew",
            module="media",
        )
    steps = range(chunk * count, (chunk + 1) * count)
    if fps is None:
        return _plan(metadata, steps)
    rate, slack = _rate(metadata, fps), _slack(metadata)
    return _plan(metadata, (bisect.bisect_right(metadata.frame_times, step / rate + slack) - 1 for step in steps))


def _held(metadata: VideoMetadata, fps: float | None) -> int:
    """Frames at `fps` from the first frame on, the last of them still on screen at its time."""
    if fps is None or len(metadata.frame_times) < 2:
        return len(metadata.frame_times)
    return math.floor((_end(metadata) - _slack(metadata)) * _rate(metadata, fps)) + 1


def _check(count: int, fps: float | None) -> None:
    if count < 1 or (fps is not None and not fps > 0):
        raise ValueError(f"{count = } and {fps = } must be positive")


def _rate(metadata: VideoMetadata, fps: float) -> float:
    return fps * _NTSC if _is_ntsc(metadata.fps) and _is_whole(fps) else fps


def _end(metadata: VideoMetadata) -> float:
    return metadata.frame_times[-1] + metadata.last_frame_duration


def _plan(metadata: VideoMetadata, frames: Iterable[int]) -> FramePlan:
    indices = tuple(frames)
    return FramePlan(
        times=tuple(metadata.frame_times[index] for index in indices),
        indices=indices,
        timestamps=tuple(metadata.timestamps[index] for index in indices) if metadata.timestamps else (),
        decoder=metadata.decoder,
    )


def _held_out(metadata: VideoMetadata, frames: Iterable[int], short_clips: ShortClips) -> FramePlan | None:
    """The plan for a clip that is shorter than the sample; None when it is to be left out."""
    held = metadata.frame_count
    if short_clips == "pad":
        return _plan(metadata, (min(frame, held - 1) for frame in frames))
    if short_clips == "loop":
        return _plan(metadata, (frame % held for frame in frames))
    return None


def _choose(starts: int, rng: random.Random | None, window: Window) -> int:
    if window in ("start", "chunks"):
        return 0
    return (starts - 1) // 2 if rng is None or window == "centre" else rng.randrange(starts)


def _slack(metadata: VideoMetadata) -> float:
    shortest = min(
        (b - a for a, b in zip(metadata.frame_times, metadata.frame_times[1:], strict=False)), default=math.inf
    )
    return min(max(_SLACK_IN_FRAMES / metadata.fps, _LEAST_SLACK_SECONDS), shortest / 4)


def _is_whole(rate: float) -> bool:
    return abs(rate - round(rate)) < 0.004


def _is_ntsc(rate: float) -> bool:
    return _is_whole(rate / _NTSC) and not _is_whole(rate)


def _too_short(metadata: VideoMetadata, held: int, fps: float | None, needed: int) -> SampleError:
    at_rate = "" if fps is None else f" at {fps:g} fps"
    seconds = (needed - 1) / (fps or metadata.fps)
    possible = (held - 1) // _FRAMES_PER_LATENT * _FRAMES_PER_LATENT + 1
    fewer = f"lower frames to {possible}, " if possible > 1 else ""
    return SampleError(
        "clip is too short",
        path=os.fspath(metadata.path) or None,
        reason=f"{held} frame{'' if held == 1 else 's'}{at_rate}, {needed} needed",
        fix=f"{fewer}set short_clips to pad or loop, or use clips longer than {seconds:.2g} s",
        module="media",
    )
