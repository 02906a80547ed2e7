"""Whether an mp4 or mov has players mirror its picture: the decoders beside PyAV turn pictures, but don't mirror."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from wan_fixes.media.boxes import outer_boxes

#: ISO 14496-12, 8.3.2: from a track header's type to its matrix, by the header's version.
_TO_MATRIX: Final = {0: 4 + 40, 1: 4 + 52}
#: Longer index boxes than this are read up to here: the headers of the tracks come before their tables.
_INDEX_BYTES: Final = 64 << 20


def is_mirrored(path: str | os.PathLike[str]) -> bool:
    """Whether the display matrix of a track mirrors. False for containers other than mp4 and mov. Raises OSError."""
    index = _index_box(path)
    at = index.find(b"tkhd")
    while at >= 0:
        start = at + _TO_MATRIX.get(index[at + 4] if at + 4 < len(index) else 0, 0)
        if start > at and start + 20 <= len(index):
            a, b, _, c, d = struct.unpack_from(">5i", index, start)
            if a * d - b * c < 0:
                return True
        at = index.find(b"tkhd", at + 4)
    return False


def _index_box(path: str | os.PathLike[str]) -> bytes:
    with Path(path).open("rb") as file:
        index = next((box for box in outer_boxes(file) if box.kind == b"moov"), None)
        if index is None:
            return b""
        file.seek(index.start)
        return file.read(min(index.size, _INDEX_BYTES))
