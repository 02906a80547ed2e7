"""Images, which train as clips of one frame: every kind that cameras and programs write, and broken ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .cases import SIZE, Case, Picture, Rejected, Truth
from .making import changed, picture

_NUMBER = 77
#: How a picture is stored that a camera held as EXIF's orientation says: upright is 1.
HELD = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_ORIENTATION = 0x0112
_UNREADABLE = Rejected(reason="no picture can be read", fix="save it again")


def _case(name: str, file: str, make: Callable[[Path], object], truth: Truth | None = None) -> Case:
    return Case(name=name, file=file, make=make, truth=truth or Picture())


def _image() -> Image.Image:
    return Image.fromarray(picture(_NUMBER))


def _saved(
    change: Callable[[Image.Image], Image.Image] = lambda image: image, **options: Any
) -> Callable[[Path], None]:
    return lambda path: change(_image()).save(path, **options)


def _mode(mode: str, **options: Any) -> Callable[[Path], None]:
    return _saved(lambda image: image.convert(mode), **options)


def _deep(path: Path) -> None:
    Image.fromarray(np.asarray(_image().convert("L")).astype(np.uint16) * 257).save(path)


def _animated(path: Path) -> None:
    others = [Image.fromarray(picture(number)) for number in range(3)]
    _image().save(path, save_all=True, append_images=others, duration=40)


def _held(orientation: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        _image().transpose(HELD[orientation]).save(path, exif=exif, quality=95)

    return make


def _transparent(path: Path) -> None:
    """Transparent in the corner, where nothing is painted."""
    image = _image().convert("RGBA")
    image.putpixel((SIZE[0] - 1, SIZE[1] - 1), (0, 0, 0, 0))
    image.save(path)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _part(percent: int) -> Callable[[bytearray], bytearray]:
    return lambda content: content[: len(content) * percent // 100]


def _wrong_check_sum(content: bytearray) -> None:
    content[content.index(b"IDAT") + 40] ^= 0xFF


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


CASES = (
    *(
        _case(f"image: {suffix}", f"plain.{suffix}", _saved())
        for suffix in ("png", "jpg", "webp", "bmp", "tif", "avif")
    ),
    _case("image: a png called jpg", "png.jpg", _saved(format="PNG")),
    _case("image: a gif called png", "gif.png", _saved(format="GIF")),
    _case("image: progressive", "progressive.jpg", _saved(progressive=True, quality=90)),
    _case("image: cmyk", "cmyk.jpg", _mode("CMYK", quality=95)),
    _case("image: grey", "grey.png", _mode("L")),
    _case("image: grey and alpha", "grey_alpha.png", _mode("LA")),
    _case("image: palette", "palette.png", _mode("P")),
    _case("image: palette of 16", "palette16.png", _saved(lambda image: image.quantize(16))),
    _case("image: black and white", "bilevel.tif", _mode("1")),
    _case("image: alpha", "alpha.png", _transparent),
    _case("image: alpha in webp", "alpha.webp", _transparent),
    _case("image: 16 bits", "deep.png", _deep),
    _case("image: 16 bits in tiff", "deep.tif", _deep),
    _case("image: lossless webp", "lossless.webp", _saved(lossless=True)),
    _case("image: compressed tiff", "lzw.tif", _saved(compression="tiff_lzw")),
    _case("image: animated webp", "moving.webp", _animated),
    _case("image: animated gif called webp", "moving_gif.webp", lambda path: _animated_as(path, "GIF")),
    _case("image: several pages", "pages.tif", _animated),
    *(_case(f"image: held as {turn}", f"held{turn}.jpg", _held(turn)) for turn in HELD),
    _case("image: turned webp", "held6.webp", _held(6)),
    _case("image: damaged exif", "exif.jpg",
          _saved(exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + b"\xff" * 40)),
    _case("image: rubbish behind it", "rubbish.jpg", changed(_saved(), lambda content: content + bytes(5000))),
    _case("image: one pixel", "pixel.png", lambda path: Image.new("RGB", (1, 1), "red").save(path),
          Picture(number=None, size=(1, 1))),
    _case("image: one line", "line.png", lambda path: Image.new("RGB", (3000, 1), "red").save(path),
          Picture(number=None, size=(3000, 1))),
    *(
        _case(f"image: {suffix} cut off at {percent} %", f"cut{percent}.{suffix}", changed(_saved(), _part(percent)),
              _UNREADABLE)
        for suffix in ("png", "jpg", "webp") for percent in (10, 50, 90)
    ),
    _case("image: a wrong check sum", "sum.png", changed(_saved(), _wrong_check_sum), _UNREADABLE),
    _case("image: a bomb", "bomb.png", _bytes(_bomb(60000, 60000)), Rejected(reason="decompression bomb")),
    _case("image: too large", "large.png", _bytes(_bomb(9000, 9000)), Rejected(reason="9000x9000 pixels",
          fix="scale it down")),
    _case("image: no pixels", "none.png", _bytes(_bomb(0, 0)), _UNREADABLE),
    _case("image: empty", "empty.png", _bytes(b""), Rejected(reason="empty")),
    _case("image: zeros", "zeros.jpg", _bytes(bytes(5000)), Rejected(reason="zero")),
    _case("image: a text", "text.png", _bytes(b"not found\n" * 9), Rejected(reason="a text file")),
    _case("image: a web page", "page.jpg", _bytes(b"<html>Log in</html>"), Rejected(reason="a web page")),
    _case("image: a drawing of vectors", "vectors.png",
          _bytes(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), Rejected(reason="a text file")),
    _case("image: a pdf", "pdf.png", _bytes(b"%PDF-1.7\n" + bytes(range(256))), Rejected(reason="a PDF document")),
    _case("image: a zip archive", "zip.webp", _bytes(b"PK\x03\x04" + bytes(range(256))),
          Rejected(reason="a ZIP archive")),
    _case("image: floating point", "float.tif",
          lambda path: Image.fromarray(np.zeros((8, 8), np.float32)).save(path), _UNREADABLE),
)  # fmt: skip


def _animated_as(path: Path, kind: str) -> None:
    _image().save(path, kind, save_all=True, append_images=[Image.fromarray(picture(3))])
