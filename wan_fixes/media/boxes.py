"""The boxes that an mp4 or mov file consists of, one after another (ISO 14496-12, 4.2)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple


class Box(NamedTuple):
    """A box of the outermost level."""

    kind: bytes
    #: Of its header, in bytes from the start of the file.
    start: int
    #: With its header, as it says: it may lie beyond the end of the file. Below 8 it cannot be, and no box follows.
    size: int


def outer_boxes(file: BinaryIO) -> Iterator[Box]:
    """Every box up to the end of `file`, or to one whose size cannot be. Raises OSError."""
    size_of_file = file.seek(0, os.SEEK_END)
    at = 0
    while at + 8 <= size_of_file:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            extended = file.read(8)
            size = struct.unpack(">Q", extended)[0] if len(extended) == 8 else 0
        elif size == 0:  # it reaches to the end
            size = size_of_file - at
        yield Box(kind, at, size)
        if size < 8:
            return
        at += size
