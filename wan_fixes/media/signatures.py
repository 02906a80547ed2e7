"""Which container a file's first bytes are those of: asked before a decoder is let at it that takes no whitelist."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: FFmpeg guesses a format from up to so many bytes.
_HEAD_BYTES: Final = 1 << 20
#: Each of our containers has a zero byte among its first ones: in a size, a version or a padding. Text has none.
_FIRST_ZERO_WITHIN: Final = 4096

_AT_START: Final = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "asf"),
    (b"OggS\x00", "ogg"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "mxf"),
    (b"nut/multimedia container\x00", "nut"),
    (b"DKIF\x00\x00", "ivf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"\x00\x00\x01\xb0", "m4v"),
)
#: The kinds of box that an mp4 or mov begins with (ISO 14496-12, and QuickTime's own).
_BOXES: Final = frozenset((b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip"))
#: A transport stream repeats its sync byte every 188 bytes; cameras put four bytes of time before each packet.
_SYNC: Final = 0x47
_SYNC_PLACES: Final = (range(0, 5 * 188, 188), range(4, 5 * 192, 192))

#: By these words FFmpeg knows the formats that name other files or addresses, wherever in the text they stand: DASH,
#: IMF, SDP. (Those of HLS and concat scripts count at the very start alone.) It reads the text up to the first zero.
_NAME_OTHERS: Final = (b"<mpd", b"<compositionplaylist", b"c=in ip")


def container_of(path: str | os.PathLike[str]) -> str | None:
    """FFmpeg's name of the container of `path`, one of `opening.CONTAINERS`; None when it looks like none of them.

    Raises OSError when the file cannot be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
    first_zero = head.find(0)
    if not 0 <= first_zero < _FIRST_ZERO_WITHIN:
        return None
    text = head[:first_zero].lower()
    if any(word in text for word in _NAME_OTHERS):
        return None
    for signature, name in _AT_START:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[4:8] in _BOXES:
        return "mov"
    if any(places[-1] < len(head) and all(head[at] == _SYNC for at in places) for places in _SYNC_PLACES):
        return "mpegts"
    return None
