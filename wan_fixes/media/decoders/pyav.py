"""PyAV: the decoder that serves whatever it can read, because it delivers the right frames and finds damage."""

from __future__ import annotations

import os
from typing import Final

from wan_fixes.media.collector import Fit, Pixels, sound
from wan_fixes.media.decode import decode_samples
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.probe import probe

__all__ = ["NAME", "decode", "is_available", "probe"]

NAME: Final = "pyav"


def is_available() -> bool:
    """Always: it is a requirement."""
    return True


def decode(
    path: str | os.PathLike[str], plan: FramePlan, *, fit: Fit | None, deadline: float, max_pixels: int
) -> Pixels:
    """One sample alone."""
    (pictures,) = decode_samples(path, [(plan, fit)], deadline=deadline, max_pixels=max_pixels)
    return sound(pictures)
