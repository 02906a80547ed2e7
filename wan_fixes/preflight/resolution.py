"""A resolution as OneTrainer writes it: "512", "512, 768" or "832x480"."""

from __future__ import annotations

import re
from typing import Final

_SIZES: Final = re.compile(r"\d+(\s*,\s*\d+)*")
_FIXED_SIZE: Final = re.compile(r"\d+x\d+")
# Other ways to write a width and a height, none of which a host reads.
_NEARLY_FIXED: Final = re.compile(r"(\d{2,5})\s*[xX*×:/]\s*(\d{2,5})")  # noqa: RUF001


def check_resolution(resolution: str) -> str | None:
    """What is wrong with a resolution ("512", "512, 768" or "832x480"), or None."""
    text = resolution.strip()
    if not (_SIZES.fullmatch(text) or _FIXED_SIZE.fullmatch(text)):
        return 'it is none of "512" (an area of 512 x 512), "512, 768" (one of them) and "832x480" (width x height)'
    if any(int(size) < 1 for size in re.split(r"\D+", text)):
        return "a size of 0 has no pixels"
    return None


def sizes_of(resolution: str) -> list[tuple[int, int]]:
    """Width and height of each size that a resolution without fault names; a single number is that of a square."""
    text = resolution.strip()
    if "x" in text:
        width, height = (int(side) for side in text.split("x"))
        return [(width, height)]
    return [(int(side), int(side)) for side in text.split(",")]


def as_resolution(text: str) -> str | None:
    """The resolution that a nearly right text means ("832 X 480"), or None."""
    match = _NEARLY_FIXED.fullmatch(text.strip())
    return None if match is None else f"{match[1]}x{match[2]}"


def fitted(resolution: str, multiple: int) -> str:
    """A resolution without fault, each side of it rounded to the nearest multiple, as hosts round their buckets."""
    return re.sub(r"\d+", lambda side: str(max(multiple, round(int(side[0]) / multiple) * multiple)), resolution)
