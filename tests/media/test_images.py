"""Images: every mode comes back as RGB as a viewer shows it, and what can't be read is refused with a reason."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media.corpus.images import HELD
from painted import paint_frame, read_frame_number
from PIL import Image

from wan_fixes.errors import SampleError
from wan_fixes.media import inspect_image, load_image

_PICTURE = Image.fromarray(paint_frame(77, width=96, height=64))


def _close(seen: np.ndarray, colour: tuple[int, ...], tolerance: int = 4) -> bool:
    return bool(np.abs(seen.astype(int) - np.array(colour)).max() <= tolerance)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"])
def test_every_format_is_read(tmp_path: Path, suffix: str):
    path = tmp_path / f"picture{suffix}"
    _PICTURE.save(path)
    picture = load_image(path)
    assert picture.dtype == np.uint8 and picture.shape == (64, 96, 3)
    assert read_frame_number(picture) == 77


def test_the_content_counts_not_the_extension(tmp_path: Path):
    path = tmp_path / "really_a_png.jpg"
    _PICTURE.save(path, format="PNG")
    assert read_frame_number(load_image(path)) == 77


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_turned_as_the_camera_was_held(tmp_path: Path, orientation: int):
    stored = _PICTURE.transpose(HELD[orientation]) if orientation in HELD else _PICTURE
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "held.jpg"
    stored.save(path, exif=exif, quality=95)
    assert read_frame_number(load_image(path)) == 77


def test_damaged_exif_data_leaves_the_picture_as_stored(tmp_path: Path):
    path = tmp_path / "exif.jpg"
    _PICTURE.save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + b"\xff" * 40)
    assert read_frame_number(load_image(path)) == 77


def test_transparency_shows_white_and_is_kept_when_asked_for(tmp_path: Path):
    red_glass = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    red_glass.putpixel((0, 0), (0, 0, 255, 255))
    path = tmp_path / "glass.png"
    red_glass.save(path)
    assert _close(load_image(path)[4, 4], (255, 255, 255)) and _close(load_image(path)[0, 0], (0, 0, 255))
    assert _close(load_image(path, channels=4)[4, 4], (255, 0, 0, 0))
    palette = red_glass.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = palette.getpixel((4, 4))
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((4, 4)))
    assert _close(load_image(tmp_path / "palette.png")[4, 4], (255, 255, 255))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    assert load_image(path)[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]
    assert load_image(path, channels=1).tolist() == [[[0], [100], [255]]]


def test_cmyk_grey_and_bilevel_become_rgb(tmp_path: Path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    assert _close(load_image(tmp_path / "print.jpg")[4, 4], (255, 0, 0), tolerance=12)
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png")
    assert _close(load_image(tmp_path / "grey.png")[4, 4], (90, 90, 90))
    Image.new("1", (8, 8), 1).save(tmp_path / "bilevel.tif")
    assert _close(load_image(tmp_path / "bilevel.tif")[4, 4], (255, 255, 255))


def test_the_first_picture_of_an_animation_is_taken(tmp_path: Path):
    path = tmp_path / "moving.gif"
    _PICTURE.save(path, save_all=True, append_images=[Image.new("RGB", (96, 64), "red")])
    assert read_frame_number(load_image(path)) == 77


def test_a_truncated_picture_is_refused_and_never_filled_with_grey(tmp_path: Path):
    for suffix in (".png", ".jpg", ".webp"):
        path = tmp_path / f"cut{suffix}"
        _PICTURE.save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(SampleError, match="no picture can be read") as caught:
            load_image(path)
        assert caught.value.path == str(path) and caught.value.fix


def test_other_things_than_pictures_are_named(tmp_path: Path):
    contents = {"text": b"hello there\n" * 9, "empty": b"", "zero": bytes(5000), "PDF": b"%PDF-1.7 and more"}
    for word, content in contents.items():
        path = tmp_path / f"{word}.png"
        path.write_bytes(content)
        with pytest.raises(SampleError, match=word):
            load_image(path)
    with pytest.raises(SampleError, match="does not exist"):
        load_image(tmp_path / "nowhere.png")


def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side, reason in ((9000, "9000x9000 pixels"), (60000, "decompression bomb")):
        path = tmp_path / f"bomb{side}.png"
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        with pytest.raises(SampleError, match=reason):
            load_image(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
@pytest.mark.timeout(30)
def test_a_pipe_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(SampleError, match="not a regular file"):
        load_image(tmp_path / "pipe.png")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".png", ".jpg", ".webp", ".gif", ".tif", ".bmp"]))
def test_damage_raises_nothing_but_a_sample_error(tmp_path: Path, data: st.DataObject, suffix: str):
    path = tmp_path / f"fuzzed{suffix}"
    _PICTURE.save(path)
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=12)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    verdict = inspect_image(path)
    assert verdict.status == "good" or (verdict.reason and verdict.fix)
