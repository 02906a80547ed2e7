"""Probing: what a clip holds, exactly, without decoding more than its first frame."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Final

from wan_fixes.media.colour import colours_of
from wan_fixes.media.index import FrameIndex, read_index
from wan_fixes.media.limits import DEADLINE_SECONDS, MAX_PIXELS, Deadline, check_picture_size
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.shape import displayed_size, is_plausible

#: Steps between frames may differ by this part of the usual one, or by two units of the container's clock (by half of
#: the usual step, where the clock is as coarse as that), before the rate counts as variable.
_STEP_TOLERANCE: Final = 0.1
#: A measured rate this near to the one in the header is that one, and the difference is rounding of time stamps.
_RATE_TOLERANCE: Final = 0.002
#: After a hole that being cut off leaves, there can be this many frames (pyramids of B-frames).
_REORDERED_FRAMES: Final = 4
_HDR_TRANSFERS: Final = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic


def probe(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, deadline: float = DEADLINE_SECONDS
) -> VideoMetadata:
    """What `path` holds: size, rate, and the time of every shown frame.

    Reads the whole file's packets and decodes one frame; a file whose packets don't tell its frames (no time stamps,
    VP8, WMV3 …) is decoded once. `deadline` is in seconds. Raises SampleError.
    """
    clock = Deadline(deadline, path)
    index, facts = read_index(path, clock, max_pixels)
    frames_read = len(index.timestamps)
    _drop_ragged_end(index.timestamps)
    frame = index.first_frame
    check_picture_size(path, frame.width, frame.height, max_pixels)
    orientation = index.orientation
    height, width = displayed_size(frame.width, frame.height, facts["pixel_aspect"], orientation)

    first = index.timestamps[0]
    times = tuple(float((stamp - first) * index.time_base) for stamp in index.timestamps)
    steps = [b - a for a, b in itertools.pairwise(index.timestamps)]
    is_variable = bool(steps) and _is_variable(steps)
    fps, last_duration = _rate(index, steps, facts["rate"], is_variable)

    warnings = []
    if index.missing_packets or len(times) < frames_read:
        promised = frames_read + index.missing_packets
        warnings.append(f"the file is cut off: {len(times)} of {promised} frames are there")
    elif facts["missing_bytes"]:
        warnings.append(f"the file is cut off: its last {facts['missing_bytes']} bytes are missing")
    if facts["video_streams"] > 1:
        warnings.append(f"it has {facts['video_streams']} video streams: the one of {width}x{height} pixels is taken")
    if not is_plausible(facts["pixel_aspect"]):
        warnings.append(
            f"its pixels cannot be as far from square as it says ({facts['pixel_aspect']}): taken as square"
        )
    if facts["transfer"] in _HDR_TRANSFERS:
        warnings.append(f"high dynamic range ({_HDR_TRANSFERS[facts['transfer']]}): colours will look pale")
    colours = colours_of(frame)
    suffix = Path(path).suffix.lower().lstrip(".")
    return VideoMetadata(
        width=width,
        height=height,
        fps=fps,
        duration=times[-1] + last_duration,
        frame_count=len(times),
        format=suffix if suffix in facts["containers"] else facts["containers"][0],
        codec=facts["codec"],
        is_corrupted=False,
        error_details=None,
        frame_times=times,
        last_frame_duration=last_duration,
        is_variable_rate=is_variable,
        rotation=orientation.clockwise_degrees,
        pixel_format=frame.format.name,
        bit_depth=frame.format.components[0].bits,
        colour_matrix=colours.matrix,
        colour_range=colours.range,
        colour_assumed=colours.assumed,
        start_seconds=0.0 if index.counted else float(first * index.time_base),
        video_streams=facts["video_streams"],
        warnings=tuple(warnings),
        path=os.fspath(path),
        timestamps=() if index.counted else tuple(index.timestamps),
    )


def _drop_ragged_end(timestamps: list[int]) -> None:
    """Drop the few last frames after a hole, in a clip that is of constant rate up to there.

    Frames are stored out of order: a file that is cut off ends with some whose predecessors in time are lost.
    """
    steps = [b - a for a, b in itertools.pairwise(timestamps)]
    if len(steps) <= 2 * _REORDERED_FRAMES:
        return
    usual = median(steps)
    holes = [place for place, step in enumerate(steps) if step > 1.5 * usual]
    if holes and holes[0] >= len(steps) - _REORDERED_FRAMES and not _is_variable(steps[: holes[0]]):
        del timestamps[holes[0] + 1 :]


def _is_variable(steps: list[int]) -> bool:
    usual = median(steps)
    return any(abs(step - usual) > max(min(2, usual / 2), _STEP_TOLERANCE * usual) for step in steps)


def _rate(index: FrameIndex, steps: list[int], header: Fraction | None, is_variable: bool) -> tuple[float, float]:
    """Frames per second, and seconds that the last frame stays."""
    if not steps:
        last = float(index.last_duration * index.time_base) or (1 / float(header) if header else 1.0)
        return float(header) if header else 1 / last, last
    mean_step = float((index.timestamps[-1] - index.timestamps[0]) * index.time_base) / len(steps)
    fps = 1 / mean_step
    if not is_variable:
        # One unit of the container's clock may be missing from the sum of all steps.
        tolerance = max(_RATE_TOLERANCE, 1.5 * float(index.time_base) / (mean_step * len(steps)))
        if header and abs(float(header) / fps - 1) < tolerance:
            fps = float(header)
        return fps, 1 / fps
    # The header may claim any length for the last frame, up to minutes of a frozen picture: no longer than others.
    longest, usual = max(steps), median(steps)
    return fps, float((min(index.last_duration, longest) or usual) * index.time_base)
