"""Small edits to the boxes of an mp4 file, for clips that encoders don't write by themselves."""

from __future__ import annotations

import struct
from pathlib import Path

_ONE = 0x10000  # 1.0 in the 16.16 fixed point of the display matrix
_TURNS = {
    0: (_ONE, 0, 0, _ONE),
    90: (0, _ONE, -_ONE, 0),
    180: (-_ONE, 0, 0, -_ONE),
    270: (0, -_ONE, _ONE, 0),
}
_MATRIX_FROM_TYPE = 4 + 40  # ISO 14496-12, 8.3.2: the matrix of a version 0 track header, from the box's type


def set_rotation(path: Path, degrees: int) -> None:
    """Make players turn the picture of the first track of `path` clockwise by 0, 90, 180 or 270 `degrees`."""
    a, b, c, d = _TURNS[degrees]
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd", content.index(b"moov"))
    if content[header + 4] != 0:
        raise ValueError(f"{path}: the track header is not of version 0")
    struct.pack_into(">9i", content, header + _MATRIX_FROM_TYPE, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def box_span(content: bytes, name: bytes) -> tuple[int, int]:
    """Start and end of the payload of the top-level box `name`, in bytes; raises KeyError when there is none."""
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", content, at + 8)[0], 16
        if size < header:
            break
        if kind == name:
            return at + header, min(at + size, len(content))
        at += size
    raise KeyError(name)
