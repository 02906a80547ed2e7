"""What can be said of one file before any training: good, usable with a warning, or rejected."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from wan_fixes.errors import SampleError
from wan_fixes.media.decoders import decode_frames, probe
from wan_fixes.media.images import load_image
from wan_fixes.media.limits import DEADLINE_SECONDS, MAX_PIXELS
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan, ShortClips, Window, count_chunks, plan_frames


@dataclass(frozen=True)
class Verdict:
    """The outcome for one file."""

    path: str
    status: Literal["good", "warning", "rejected"]
    reason: str = ""
    fix: str = ""
    #: Of a video that could be probed.
    metadata: VideoMetadata | None = None
    #: Square pixels as shown, of an image or a video that could be measured.
    width: int | None = None
    height: int | None = None


def inspect_video(
    path: str | os.PathLike[str],
    *,
    count: int,
    fps: float | None,
    window: Window = "centre",
    short_clips: ShortClips = "skip",
    deadline: float = DEADLINE_SECONDS,
    max_pixels: int = MAX_PIXELS,
) -> Verdict:
    """Whether `path` can give samples of `count` frames at `fps`: probes it and decodes one, of several the middle one.

    Every frame of the window is decoded and checked for damage, three are converted, so little memory is taken.
    `deadline` is in seconds, for each of the two steps. Raises nothing about the file.
    """
    metadata = None
    try:
        metadata = probe(path, max_pixels=max_pixels, deadline=deadline)
        plan, too_short = _plan(metadata, count, fps, window, short_clips)
        decode_frames(path, _first_middle_last(plan), deadline=deadline, max_pixels=max_pixels)
    except SampleError as error:
        return rejected(path, error, metadata)
    warnings, fix = list(metadata.warnings), ""
    repeated = count - len(set(plan.indices))
    if too_short:
        how = "its last frame is held" if short_clips == "pad" else "it begins anew"
        warnings.append(f"{too_short}: {how}, and {repeated} of {count} frames are repeats")
        fix = "lower frames, or use longer clips"
    elif repeated and fps is not None:
        warnings.append(
            f"{repeated} of {count} frames are repeats, because it has {metadata.fps:.3g} frames per second"
        )
        constant = " at a constant rate" if metadata.is_variable_rate else ""
        fix = f"use a source of {fps:g} frames per second or more{constant}"
    status: Literal["good", "warning"] = "warning" if warnings else "good"
    reason, size = "; ".join(warnings), (metadata.width, metadata.height)
    return Verdict(os.fspath(path), status, reason, fix, metadata, *size)


def inspect_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Verdict:
    """Whether `path` can be read as an image. Raises nothing about the file."""
    try:
        height, width, _ = load_image(path, max_pixels=max_pixels).shape
    except SampleError as error:
        return rejected(path, error)
    return Verdict(os.fspath(path), "good", width=width, height=height)


def _plan(
    metadata: VideoMetadata, count: int, fps: float | None, window: Window, short_clips: ShortClips
) -> tuple[FramePlan, str]:
    """The plan, and for a clip that is too short and used nevertheless, how many frames it has."""
    middle = count_chunks(metadata, count=count, fps=fps) // 2 if window == "chunks" else 0
    try:
        return plan_frames(metadata, count=count, fps=fps, window=window, chunk=middle), ""
    except SampleError as error:
        return plan_frames(metadata, count=count, fps=fps, window=window, short_clips=short_clips), error.reason


def _first_middle_last(plan: FramePlan) -> FramePlan:
    at = sorted({0, len(plan.indices) // 2, len(plan.indices) - 1})
    return replace(
        plan,
        times=tuple(plan.times[place] for place in at),
        indices=tuple(plan.indices[place] for place in at),
        timestamps=tuple(plan.timestamps[place] for place in at) if plan.timestamps else plan.timestamps,
    )


def rejected(path: str | os.PathLike[str], error: SampleError, metadata: VideoMetadata | None = None) -> Verdict:
    """The verdict on a file that `error` says cannot be used."""
    width, height = (metadata.width, metadata.height) if metadata else (None, None)
    return Verdict(os.fspath(path), "rejected", error.reason, error.fix, metadata, width, height)
