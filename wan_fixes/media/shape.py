"""The size at which a clip is shown: its stored pixels, which need not be square, turned for display."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from av.video.stream import VideoStream

from wan_fixes.media.colour import Orientation

#: Pixels further from square than this are a fault of the file: 16:9 in the PAL of 1993 comes to 64:45.
_LARGEST_ASPECT: Final = 4


def pixel_aspect_of(stream: VideoStream) -> Fraction:
    """Width of a stored pixel by its height, as the container or the codec says; 1 where neither does."""
    return stream.sample_aspect_ratio or Fraction(1)


def is_plausible(pixel_aspect: Fraction) -> bool:
    """Whether pixels can be of that shape."""
    return Fraction(1, _LARGEST_ASPECT) <= pixel_aspect <= _LARGEST_ASPECT


def displayed_size(width: int, height: int, pixel_aspect: Fraction, orientation: Orientation) -> tuple[int, int]:
    """Height and width in square pixels of a picture stored as `width` by `height`.

    The side that its pixels make longer is stretched, so that no detail is lost. An aspect that is not plausible is
    passed over.
    """
    if is_plausible(pixel_aspect):
        width, height = max(width, round(width * pixel_aspect)), max(height, round(height / pixel_aspect))
    return (width, height) if orientation.swaps_sides else (height, width)
