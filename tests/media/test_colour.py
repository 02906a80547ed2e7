"""Colours: a known colour, stored as its matrix and range say, comes back as itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
import pytest

from wan_fixes.media import decode_frames, plan_frames, probe

# Kr and Kb of the luma equation: ITU-R BT.601-7 2.5.1, BT.709-6 3.2, BT.2020-2 table 4
_BT601, _BT709, _BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
_COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (230, 220, 30), (128, 128, 128), (16, 16, 16), (250, 250, 250)]
_TAGS = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9}


def _yuv(colour: tuple[int, int, int], matrix: tuple[float, float], full_range: bool) -> list[int]:
    red, green, blue = (value / 255 for value in colour)
    kr, kb = matrix
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = ((blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr))
    if full_range:
        return [round(255 * luma), *(round(128 + 255 * value) for value in chroma)]
    return [round(16 + 219 * luma), *(round(128 + 224 * value) for value in chroma)]


def _write(
    path: Path,
    size: tuple[int, int],
    matrix: tuple[float, float],
    full_range: bool,
    tag: str | None,
    encoder: str = "libx264",
    options: Mapping[str, str] = MappingProxyType({"qp": "0", "preset": "ultrafast"}),
) -> Path:
    """One flat frame per colour, lossless, so that nothing but the conversion can change it."""
    width, height = size
    options = dict(options)
    if tag:
        options["colorspace"] = str(_TAGS[tag])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=16, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if full_range:
            stream.codec_context.color_range = 2
        for colour in _COLOURS:
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane, value in zip(frame.planes, _yuv(colour, matrix, full_range), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("size", "matrix", "tag"),
    [
        ((320, 240), _BT601, None),
        ((1280, 720), _BT709, None),
        ((608, 1080), _BT709, None),
        ((320, 240), _BT709, "bt709"),
        ((1280, 720), _BT601, "smpte170m"),
        ((320, 240), _BT2020, "bt2020nc"),
    ],
    ids=["untagged SD", "untagged HD", "untagged upright HD", "SD tagged 709", "HD tagged 601", "tagged 2020"],
)
def test_colours_come_back(tmp_path: Path, size, matrix, tag, full_range: bool):
    path = _write(tmp_path / "colours.mp4", size, matrix, full_range, tag)
    pictures = decode_frames(path, plan_frames(probe(path), count=len(_COLOURS), fps=None), deadline=20)
    seen = pictures[:, size[1] // 2, size[0] // 2].astype(int)
    assert np.abs(seen - np.array(_COLOURS)).max() <= 3, seen


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
def test_a_range_that_only_the_tag_tells_is_respected(tmp_path: Path, full_range: bool):
    """FFV1 keeps the pixel format yuv420p for both ranges, unlike H.264, whose full range decodes as yuvj420p."""
    path = _write(tmp_path / "ranges.mkv", (320, 240), _BT601, full_range, None, encoder="ffv1", options={})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).format.name == "yuv420p"
    pictures = decode_frames(path, plan_frames(probe(path), count=len(_COLOURS), fps=None), deadline=20)
    assert np.abs(pictures[:, 120, 160].astype(int) - np.array(_COLOURS)).max() <= 3


def test_ten_bits_and_rgb_streams_keep_their_colours(tmp_path: Path):
    for name, encoder, pixel_format, options in (
        ("a.mov", "prores_ks", "yuv422p10le", {}),
        ("b.mkv", "ffv1", "bgr0", {}),
        ("c.mov", "png", "rgb24", {}),
    ):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(encoder, rate=16, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
            for colour in _COLOURS:
                flat = np.broadcast_to(np.uint8(colour), (48, 64, 3))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(flat), format="rgb24")))
            container.mux(stream.encode(None))
        pictures = decode_frames(path, plan_frames(probe(path), count=len(_COLOURS), fps=None), deadline=20)
        assert np.abs(pictures[:, 24, 32].astype(int) - np.array(_COLOURS)).max() <= 3, name
