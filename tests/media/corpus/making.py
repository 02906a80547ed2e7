"""Making clips for the corpus, and taking them apart again: packets copied, boxes and bytes changed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from clips import write_clip
from painted import paint_frame

from .cases import FRAMES, RATE, SIZE

X264 = {"preset": "veryfast", "crf": "18"}
#: Key frames at 0, 12, 24, and frames that change places.
GROUPS = X264 | {"g": "12", "bf": "2"}
OPEN_GROUPS = X264 | {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}
MPEG = {"qscale": "3", "g": "12", "bf": "2"}
X265 = {"preset": "ultrafast", "crf": "18", "x265-params": "log-level=none:keyint=12"}

TS_PACKET = 188
#: Boxes of mp4 that hold boxes, and how many bytes come before those.
_NESTED = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"dinf": 0, b"stbl": 0, b"edts": 0, b"stsd": 8, b"avc1": 78}


@lru_cache(maxsize=512)
def picture(number: int, width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """The painted picture; never write to it."""
    return paint_frame(number, width=width, height=height)


def clip(path: Path, *, numbers: Iterable[int] = range(FRAMES), size: tuple[int, int] = SIZE, **options: Any) -> Path:
    """`write_clip` of painted pictures, at the corpus' rate and size."""
    options = {"rate": RATE, "options": GROUPS, **options}
    return write_clip(path, (picture(number, *size) for number in numbers), **options)


def clip_of(**options: Any) -> Callable[[Path], Path]:
    """A maker that calls `clip` with `options`."""
    return lambda path: clip(path, **options)


def changed(make: Callable[[Path], object], change: Callable[[bytearray], object]) -> Callable[[Path], object]:
    """A maker whose file's bytes are changed afterwards: in place, or by what `change` returns."""

    def made(path: Path) -> None:
        make(path)
        content = bytearray(path.read_bytes())
        result = change(content)
        path.write_bytes(content if result is None else result)

    return made


def under_name(suffix: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """A maker of a file whose own name lies: `make` sees one that ends with `suffix`."""

    def made(path: Path) -> None:
        honest = path.with_name(f"honest{suffix}")
        make(honest)
        honest.replace(path)

    return made


def copy_packets(
    source: Path, target: Path, choose: Callable[[list[av.Packet]], list[av.Packet]], **options: str
) -> None:
    """Copy the video packets of `source` that `choose` leaves, changed as it likes, without decoding."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet in choose([packet for packet in reader.demux(stream) if packet.size]):
            packet.stream = copy
            writer.mux(packet)


def cut(source: Path, target: Path, start: Fraction, *, new_zero: Fraction) -> int:
    """Copy packets from the key frame before `start` on, with `new_zero` as time 0, as `ffmpeg -ss -c copy` does.

    Returns how many of the frames come before that key frame in time, and build on what is cut away.
    """
    leading = 0

    def choose(packets: list[av.Packet]) -> list[av.Packet]:
        base = packets[0].time_base
        keys = [place for place, packet in enumerate(packets) if packet.is_keyframe and packet.pts * base <= start]
        kept = packets[keys[-1] :]
        nonlocal leading
        leading = sum(packet.pts < kept[0].pts for packet in kept)
        for packet in kept:
            packet.pts, packet.dts = packet.pts - int(new_zero / base), packet.dts - int(new_zero / base)
        return kept

    copy_packets(source, target, choose)
    return leading


def box(content: bytes, *path: bytes) -> tuple[int, int]:
    """Start and end, in bytes, of what a box of an mp4 holds, found by its path; or KeyError (ISO 14496-12, 4.2)."""
    start, end = 0, len(content)
    for name in path:
        at = start
        while True:
            if at + 8 > end:
                raise KeyError(name)
            size, kind = struct.unpack_from(">I4s", content, at)
            if kind == name:
                start, end = at + 8 + _NESTED.get(name, 0), at + size
                break
            at += size
    return start, end


def table(content: bytes, name: bytes) -> tuple[int, int]:
    """`box` of one of the tables of samples."""
    return box(content, b"moov", b"trak", b"mdia", b"minf", b"stbl", name)


def rename_box(content: bytearray, *path: bytes) -> None:
    """Make a box one of an unknown kind, which readers pass over."""
    start, _ = box(content, *path)
    content[start - 4 - _NESTED.get(path[-1], 0) : start - _NESTED.get(path[-1], 0)] = b"free"


def packet_spans(path: Path) -> list[tuple[int, int]]:
    """Start and size, in bytes, of each video packet in the file's order."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def flip_bits(content: bytearray, start: int, end: int, *, count: int, seed: int = 0) -> None:
    """Turn over `count` bits between `start` and `end`."""
    chance = random.Random(seed)
    for _ in range(count):
        content[chance.randrange(start, end)] ^= 1 << chance.randrange(8)


def tone(path: Path, *, seconds: float = 0.5, cover: bool = False) -> None:
    """A recording of sound; with `cover`, a picture as players show beside it."""
    with av.open(str(path), "w") as container:
        if cover:
            art = container.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = 48, 48, "yuvj420p"
            art.disposition = type(art.disposition).attached_pic.value
        sound = container.add_stream("aac", rate=16000, layout="mono")
        if cover:
            container.mux(art.encode(av.VideoFrame.from_ndarray(picture(200, 48, 48), format="rgb24")))
            container.mux(art.encode(None))
        add_sound(container, sound, seconds)


def add_sound(container: Any, stream: Any, seconds: float) -> None:
    """Encode a tone into `stream`."""
    samples = np.sin(np.arange(int(16000 * seconds)) * (2 * np.pi * 440 / 16000)).astype(np.float32)[None]
    for start in range(0, samples.shape[1], 1024):
        part = np.ascontiguousarray(samples[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
