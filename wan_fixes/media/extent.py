"""How long a file says that it is: what is shorter was cut off, by a full disk or a broken download."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from wan_fixes.media.boxes import outer_boxes

_HEAD_BYTES: Final = 1 << 16
#: The boxes that an mp4 or mov consists of (ISO 14496-12, table 1). What follows the last of them isn't the film's.
_BOXES: Final = frozenset(b"ftyp styp moov moof mdat wide free skip mfra sidx uuid meta udta".split())
_EBML: Final = b"\x1aE\xdf\xa3"
_SEGMENT: Final = b"\x18S\x80g"
_ASF_HEADER: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def missing_bytes(path: str | os.PathLike[str]) -> int:
    """How many bytes `path` lacks by its own account; 0 when none, or when its container doesn't say.

    Looks at the headers of the outermost level alone. Raises OSError.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        if head.startswith(_EBML):
            declared = _matroska(head)
        elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            declared = _riff(head)
        elif head.startswith(_ASF_HEADER):
            declared = _asf(head)
        elif head[4:8] in _BOXES:
            declared = _boxes(file)
        else:
            return 0
    return max(0, declared - size)


def _boxes(file: BinaryIO) -> int:
    end = 0
    for box in outer_boxes(file):
        if box.kind not in _BOXES or box.size < 8:
            break
        end = box.start + box.size
    return end


def _matroska(head: bytes) -> int:
    """RFC 9559, 4.5; a recording that goes on says that its size is unknown."""
    size, start = _ebml_size(head, len(_EBML))
    at = start + size
    if head[at : at + 4] != _SEGMENT:
        return 0
    size, start = _ebml_size(head, at + 4)
    return start + size


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """A size as RFC 8794, 6.1 packs it, and where it ends; 0 when it is unknown or cannot be."""
    width = 9 - head[at].bit_length() if at < len(head) else 9
    if width > 8 or at + width > len(head):
        return 0, at
    bits = (1 << 7 * width) - 1
    size = int.from_bytes(head[at : at + width], "big") & bits
    return (0 if size == bits else size), at + width


def _riff(head: bytes) -> int:
    """Recorders that died leave a size of 0; of a file with several such lists, the first counts."""
    (size,) = struct.unpack_from("<I", head, 4)
    return size + 8 if 0 < size < 0xFFFFFFFF else 0


def _asf(head: bytes) -> int:
    """ASF specification, 3.2; a broadcast doesn't know its size."""
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return 0
    size, flags = struct.unpack_from("<Q", head, at + 40)[0], struct.unpack_from("<I", head, at + 88)[0]
    return 0 if flags & 1 else size
