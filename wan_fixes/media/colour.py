"""How a decoded frame's colours and orientation are to be understood."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

# AVColorSpace (libavutil/pixfmt.h); swscale's own numbers agree for these.
_BT709: Final = 1
_UNTAGGED: Final = (0, 2, 3)  # RGB (impossible for YUV), unspecified, reserved
_BT601: Final = 5
_NAMES: Final = {
    1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco", 9: "bt2020", 10: "bt2020cl", 14: "ictcp"
}  # fmt: skip
_RGB: Final = 0
# AVColorRange
_LIMITED: Final = 1
_FULL: Final = 2

_HD_WIDTH: Final = 1280
_SD_HEIGHT: Final = 576


class Orientation(NamedTuple):
    """How the stored picture is turned for display: first mirrored left to right, then turned."""

    #: Quarter turns counterclockwise, as `numpy.rot90` counts.
    quarter_turns: int = 0
    mirrored: bool = False

    @property
    def clockwise_degrees(self) -> int:
        """0, 90, 180 or 270."""
        return -90 * self.quarter_turns % 360

    @property
    def swaps_sides(self) -> bool:
        return self.quarter_turns % 2 == 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """A view of `[H, W]` or `[H, W, C]` turned for display."""
        return np.rot90(picture[:, ::-1] if self.mirrored else picture, self.quarter_turns)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Read a frame's display matrix, which FFmpeg passes on and doesn't apply."""
    by_type: Any = frame.side_data
    matrix = by_type.get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].astype(float)
    if a * d - b * c == 0:
        return Orientation()
    mirrored = a * d - b * c < 0
    if mirrored:  # take the mirroring, which comes first, out of the matrix
        a, b = -a, -b
    return Orientation(round(-math.atan2(b, a) / (math.pi / 2)) % 4, mirrored)


class Colours(NamedTuple):
    """Which colours a frame's numbers stand for."""

    #: AVColorSpace.
    space: int
    full_range: bool
    #: The file doesn't say, and what players guess is taken.
    assumed: bool = False

    @property
    def matrix(self) -> str:
        """ "rgb", "bt601", "bt709" …"""
        return "rgb" if self.space == _RGB else _NAMES.get(self.space, str(self.space))

    @property
    def range(self) -> str:
        """ "full" or "limited"."""
        return "full" if self.full_range else "limited"


def colours_of(frame: av.VideoFrame) -> Colours:
    """Read a frame's tags, and guess where there are none.

    Tagged frames are taken at their word. Untagged YUV is BT.709 for HD and BT.601 below, as players guess (mpv's
    `mp_csp_guess_colorspace`); FFmpeg itself would take BT.601 for all, which is off by up to 21 of 255 in HD.
    """
    if frame.format.is_rgb or frame.format.has_palette:
        return Colours(_RGB, full_range=True)
    full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
    space = int(frame.colorspace)
    if space not in _UNTAGGED:
        return Colours(space, full)
    is_hd = frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT
    return Colours(_BT709 if is_hd else _BT601, full, assumed=True)


def rgb_conversion(frame: av.VideoFrame) -> dict[str, Any]:
    """Keyword arguments of `VideoReformatter.reformat` that turn `frame` into planar RGB with the right colours."""
    colours = colours_of(frame)
    if colours.space == _RGB:
        return {"format": "gbrp"}
    return {
        "format": "gbrp",
        "src_colorspace": colours.space,
        # RGB has no matrix; but older PyAV skips the conversion's set-up when the two are equal.
        "dst_colorspace": _BT709 if colours.space != _BT709 else _BT601,
        "src_color_range": _FULL if colours.full_range else _LIMITED,
        "dst_color_range": _FULL,
    }
