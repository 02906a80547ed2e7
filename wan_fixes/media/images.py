"""Images to arrays: every mode that Pillow reads, turned as the camera held it, on white where it is transparent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from wan_fixes.errors import SampleError
from wan_fixes.media.diagnosis import check_regular_file, why_not_an_image
from wan_fixes.media.limits import MAX_PIXELS, check_memory, check_picture_size

_FORMATS: Final = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "TIFF", "AVIF", "GIF")
_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_EXIF_ORIENTATION: Final = 0x0112
_TURNS: Final = {  # Exif 2.32, 4.6.4 A
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNREADABLE: Final = "image cannot be read"


def load_image(
    path: str | os.PathLike[str], *, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """The picture as uint8 `[H, W, C]`, EXIF rotation applied; the first one of an animation.

    `channels` is 1 (grey), 3 (RGB) or 4 (RGBA). For 1 and 3, what is transparent becomes white. 16 bits are reduced
    to 8. What counts is the content, not the extension. Raises SampleError.
    """
    if channels not in _MODES:
        raise ValueError(f"{channels = } is none of {tuple(_MODES)}")
    check_regular_file(path, _UNREADABLE)
    try:
        with Image.open(Path(path), formats=_formats()) as image:
            check_picture_size(path, image.width, image.height, max_pixels)
            image.load()
            picture = np.asarray(_converted(_upright(image), _MODES[channels]))
    except SampleError:
        raise
    except Exception as error:  # Pillow's readers raise anything at all on damaged files
        check_memory(path, error)
        diagnosis = why_not_an_image(path, error)
        raise SampleError(_UNREADABLE, path=path, **diagnosis._asdict(), module="media") from error
    return picture[:, :, None] if channels == 1 else picture


def _formats() -> list[str]:
    """Of the formats that we read, those that this Pillow was built with."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation: Any = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - damaged EXIF data raises anything; viewers show such a picture as stored
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):
        image = _reduced_to_8_bits(image)
    if mode != "RGBA" and ("A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _reduced_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey: Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
        raise ValueError("its pixels have 32 bits a channel")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
