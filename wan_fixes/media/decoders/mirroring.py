"""Whether an mp4 or mov has players mirror its picture: the decoders beside PyAV turn pictures, but don't mirror."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

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
        size_of_file = file.seek(0, os.SEEK_END)
        at = 0
        while at + 16 <= size_of_file:
            file.seek(at)
            size, kind, extended = struct.unpack(">I4sQ", file.read(16))
            size = {0: size_of_file - at, 1: extended}.get(size, size)
            if kind == b"moov":
                file.seek(at)
                return file.read(min(size, _INDEX_BYTES))
            if size < 8:
                break
            at += size
    return b""
