"""Frame numbers painted into pictures, and read back after compression, scaling and cropping.

The number is a grid of black and white cells around the centre of the picture, sized by the shorter side, so that
a centred crop to a square keeps it. The upper half of the grid holds the bits, the lower half their complement:
a reading counts only when every cell disagrees with its complement. Four marker bits make a picture that is
mirrored or turned unreadable instead of readable as another number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

MAX_FRAME_NUMBER = 255

_COLUMNS = 6
_BIT_ROWS = 2
_ROWS = 2 * _BIT_ROWS
_WIDTH_OF_SIDE = 0.72
_HEIGHT_OF_SIDE = 0.56
_MARKERS = {(0, 0): 1, (1, 0): 1, (0, _COLUMNS - 1): 0, (1, _COLUMNS - 1): 1}
_BIT_CELLS = [(r, c) for r in range(_BIT_ROWS) for c in range(_COLUMNS) if (r, c) not in _MARKERS]
_DARK, _LIGHT = 24, 232
_LEAST_CONTRAST = 0.2  # of the full range, between a cell and its complement


def paint_frame(number: int, *, width: int, height: int, hue: float = 0.0) -> npt.NDArray[np.uint8]:
    """A picture that shows `number`: uint8 `[height, width, 3]` RGB, upright, with a background that moves.

    `number` is in [0, MAX_FRAME_NUMBER]; `hue` in [0, 1] sets the colours apart from other clips'.
    """
    if not 0 <= number <= MAX_FRAME_NUMBER:
        raise ValueError(f"{number = } is not in [0, {MAX_FRAME_NUMBER}]")
    picture = _background(number, width, height, hue)
    _write_decimal(picture, number)
    top, left, cell_height, cell_width = _grid(height, width)
    for (row, column), bit in _cell_bits(number).items():
        for at_row, value in ((row, bit), (row + _BIT_ROWS, 1 - bit)):
            rows = slice(round(top + at_row * cell_height), round(top + (at_row + 1) * cell_height))
            columns = slice(round(left + column * cell_width), round(left + (column + 1) * cell_width))
            picture[rows, columns] = _LIGHT if value else _DARK
    return picture


def read_frame_number(picture: npt.NDArray[Any]) -> int | None:
    """The number painted into `picture`, or None when none can be read beyond doubt.

    `picture` is `[H, W, 3]` RGB, upright: uint8, or floating point in [0, 1] or [-1, 1]. A centred crop that takes
    up to an eighth off the shorter side is still read.
    """
    if picture.ndim != 3 or min(picture.shape[:2]) < 8:
        return None
    full_range = 255.0 if picture.dtype == np.uint8 else 1.0
    grey = picture.astype(np.float32).mean(axis=2)
    top, left, cell_height, cell_width = _grid(*grey.shape)
    cells = np.empty((_ROWS, _COLUMNS), dtype=np.float32)
    for row in range(_ROWS):
        for column in range(_COLUMNS):
            y, x = top + (row + 0.5) * cell_height, left + (column + 0.5) * cell_width
            half_height, half_width = max(0.5, cell_height / 6), max(0.5, cell_width / 6)
            cells[row, column] = grey[
                int(y - half_height) : int(np.ceil(y + half_height)), int(x - half_width) : int(np.ceil(x + half_width))
            ].mean()
    difference = cells[:_BIT_ROWS] - cells[_BIT_ROWS:]
    if np.abs(difference).min() < _LEAST_CONTRAST * full_range:
        return None
    bits = difference > 0
    if any(bool(bits[cell]) != bool(value) for cell, value in _MARKERS.items()):
        return None
    return sum(1 << place for place, cell in enumerate(_BIT_CELLS) if bits[cell])


def _cell_bits(number: int) -> dict[tuple[int, int], int]:
    return _MARKERS | {cell: number >> place & 1 for place, cell in enumerate(_BIT_CELLS)}


def _grid(height: int, width: int) -> tuple[float, float, float, float]:
    """Top, left, cell height and cell width of the grid, in pixels."""
    side = min(height, width)
    grid_height, grid_width = _HEIGHT_OF_SIDE * side, _WIDTH_OF_SIDE * side
    return (height - grid_height) / 2, (width - grid_width) / 2, grid_height / _ROWS, grid_width / _COLUMNS


def _background(number: int, width: int, height: int, hue: float) -> npt.NDArray[np.uint8]:
    """Soft coloured waves that drift with the frame number."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(0, width / height, width, dtype=np.float32)[None, :]
    phase = number / 40
    waves = [np.sin(2 * np.pi * (x * (1 + 0.3 * k) + y * (0.7 - 0.2 * k) + phase + hue + k / 3)) for k in range(3)]
    return (128 + 80 * np.stack(waves, axis=-1)).astype(np.uint8)


def _write_decimal(picture: npt.NDArray[np.uint8], number: int) -> None:
    """The number for people, above the grid."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    font = ImageFont.load_default(size=max(8, min(height, width) // 6))
    ImageDraw.Draw(image).text((2, 0), str(number), fill="white", stroke_width=1, stroke_fill="black", font=font)
    picture[:] = np.asarray(image)
