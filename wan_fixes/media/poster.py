"""One small picture of a file, for people: also of a clip that cannot be trained on, as far as anything shows."""

from __future__ import annotations

import io
import os
from typing import Final

import av
import numpy as np
from PIL import Image

from wan_fixes.errors import SampleError
from wan_fixes.media.colour import Orientation, rgb_conversion
from wan_fixes.media.folders import is_video
from wan_fixes.media.images import load_image
from wan_fixes.media.limits import MAX_PIXELS, Deadline
from wan_fixes.media.opening import FOREIGN_ERRORS, open_video
from wan_fixes.media.shape import displayed_size, pixel_aspect_of

#: Seconds that a picture for people is worth.
_DEADLINE_SECONDS: Final = 3.0
_QUALITY: Final = 80


def poster(path: str | os.PathLike[str], *, height: int = 120, max_pixels: int = MAX_PIXELS) -> bytes | None:
    """The first picture of a clip, damaged or not, or an image, as a JPEG of this height; None when nothing shows."""
    try:
        picture = _first_frame(path, max_pixels) if is_video(path) else load_image(path, max_pixels=max_pixels)
    except SampleError:
        return None
    if picture is None:
        return None
    image = Image.fromarray(picture)
    image.thumbnail((4 * height, height))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=_QUALITY)
    return jpeg.getvalue()


def _first_frame(path: str | os.PathLike[str], max_pixels: int) -> np.ndarray | None:
    """`[H, W, 3]` as shown, of the first frame that the decoder gives at all."""
    clock = Deadline(_DEADLINE_SECONDS, path)
    with open_video(path, clock, max_pixels, threads=False) as video:
        try:
            for packet in video.container.demux(video.stream):
                clock.check()
                for frame in video.frames_of(packet):
                    return _as_shown(frame, video.stream, video.decoder.orientation_of(frame))
        except FOREIGN_ERRORS:
            return None
    return None


def _as_shown(frame: av.VideoFrame, stream: av.VideoStream, orientation: Orientation) -> np.ndarray:
    height, width = displayed_size(frame.width, frame.height, pixel_aspect_of(stream), orientation)
    if orientation.swaps_sides:
        height, width = width, height
    rgb = frame.reformat(width, height, **(rgb_conversion(frame) | {"format": "rgb24"}))
    return np.ascontiguousarray(orientation.apply(rgb.to_ndarray()))
