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


def rgb_conversion(frame: av.VideoFrame) -> dict[str, Any]:
    """Keyword arguments of `VideoReformatter.reformat` that turn `frame` into planar RGB with the right colours.

    Tagged frames are taken at their word. Untagged YUV is BT.709 for HD and BT.601 below, as players guess (mpv's
    `mp_csp_guess_colorspace`); FFmpeg itself would take BT.601 for all, which is off by up to 21 of 255 in HD.
    """
    if frame.format.is_rgb:
        return {"format": "gbrp"}
    space = int(frame.colorspace)
    if space in _UNTAGGED:
        space = _BT709 if frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT else _BT601
    full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
    return {
        "format": "gbrp",
        "src_colorspace": space,
        # RGB has no matrix; but older PyAV skips the conversion's set-up when the two are equal.
        "dst_colorspace": _BT709 if space != _BT709 else _BT601,
        "src_color_range": _FULL if full else _LIMITED,
        "dst_color_range": _FULL,
    }
