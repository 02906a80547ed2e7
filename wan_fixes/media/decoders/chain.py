"""Which decoder serves a clip: the first that can read it. What PyAV finds damaged no other is asked about.

The order is that of docs/performance.md, "Decoders": by how many of the planned frames each delivers. The others
show damaged frames as if they were good, so they are asked only where PyAV's FFmpeg lacks the container or the codec.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from wan_fixes.errors import SampleError
from wan_fixes.media.collector import Allocate, Fit, Pixels, new_array
from wan_fixes.media.decode import decode_samples as decode_with_pyav
from wan_fixes.media.decoders import decord, pyav, torchcodec
from wan_fixes.media.decoders.base import Decoder
from wan_fixes.media.limits import DEADLINE_SECONDS, MAX_PIXELS, Deadline
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.signatures import container_of

CHAIN: Final[tuple[Decoder, ...]] = (pyav, torchcodec, decord)


def is_decoder_available(name: str) -> bool:
    """Whether the decoder of that name (`VideoMetadata.decoder`) works here."""
    return any(name == decoder.NAME and decoder.is_available() for decoder in CHAIN)


def probe(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, deadline: float = DEADLINE_SECONDS
) -> VideoMetadata:
    """What `path` holds: size, rate, the time of every shown frame, and which decoder serves it.

    PyAV reads the whole file's packets and decodes one frame; a file whose packets don't tell its frames (no time
    stamps, VP8, WMV3 …) is decoded once. `deadline` is in seconds, for all decoders together. Raises SampleError.
    """
    clock = Deadline(deadline, path)
    try:
        return CHAIN[0].probe(path, max_pixels=max_pixels, deadline=deadline)
    except SampleError as error:
        if not error.context.get("unsupported") or container_of(path) is None:
            raise
        refused = error
    for decoder in CHAIN[1:]:
        if not decoder.is_available():
            continue
        try:
            return decoder.probe(path, max_pixels=max_pixels, deadline=clock.remaining())
        except SampleError as error:
            refused.context.setdefault("decoders", {})[decoder.NAME] = error.reason
            if error.context.get("damaged") is False:  # too slow, or too large: not the file's fault
                refused.context["damaged"] = False
    tried = refused.context.get("decoders")
    if tried:
        refused.reason += f"; nor can {' or '.join(tried)} read it"
    raise refused


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
    and smoothed where it shrinks), so that few frames exist in their own size: memory is that of the result.
    `deadline` is in seconds. The decoder is the one that probed the clip. Raises SampleError when a frame is damaged
    (in the window, or between the key frame and it: damage spreads), when one is missing, or when time is over.
    """
    for decoder in CHAIN:
        if plan.decoder == decoder.NAME and decoder.is_available():
            return decoder.decode(path, plan, fit=fit, deadline=deadline, max_pixels=max_pixels)
    raise SampleError(
        "clip cannot be read",
        path=path,
        reason=f"it was measured with {plan.decoder}, which does not work here",
        fix=f"install {plan.decoder}, or have the clip measured again",
        module="media",
        context={"damaged": False},
    )


def decode_samples(
    path: str | os.PathLike[str],
    samples: Sequence[tuple[FramePlan, Fit | None]],
    *,
    deadline: float = DEADLINE_SECONDS,
    max_pixels: int = MAX_PIXELS,
    allocate: Allocate = new_array,
) -> list[Pixels | SampleError]:
    """Of each sample of a clip what `decode_clip` would return or raise, in as few passes over the clip as it takes.

    Windows that overlap, or follow one another within less than a window, share a pass: each frame is decoded once for
    all of them (by PyAV; other decoders are asked for one sample after the other). `deadline` is in seconds for each
    sample, in one sum for all. `allocate(shape)` gives the uint8 array that a sample's frames are written into.
    """
    if all(plan.decoder == pyav.NAME for plan, _ in samples):
        return decode_with_pyav(path, samples, deadline=deadline, max_pixels=max_pixels, allocate=allocate)
    clock = Deadline(deadline * len(samples), path)
    results: list[Pixels | SampleError] = []
    for plan, fit in samples:
        try:
            clock.check()
            seconds = min(deadline, clock.remaining())
            pictures = decode_clip(path, plan, fit=fit, deadline=seconds, max_pixels=max_pixels)
        except SampleError as error:
            results.append(error)
            continue
        result = allocate(pictures.shape)
        result[:] = pictures
        results.append(result)
    return results


def decode_frames(
    path: str | os.PathLike[str],
    plan: FramePlan,
    *,
    deadline: float = DEADLINE_SECONDS,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """`decode_clip` at the clip's own size, as `[F, H, W, 3]`: a view, its channels lie apart in memory."""
    return np.moveaxis(decode_clip(path, plan, deadline=deadline, max_pixels=max_pixels), 0, -1)
