"""PyAV: the decoder that serves whatever it can read, because it delivers the right frames and finds damage."""

from __future__ import annotations

from typing import Final

from wan_fixes.media.decode import decode_clip as decode
from wan_fixes.media.probe import probe

__all__ = ["NAME", "decode", "is_available", "probe"]

NAME: Final = "pyav"


def is_available() -> bool:
    """Always: it is a requirement."""
    return True
