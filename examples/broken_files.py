"""Files that a folder of training clips should not hold, and sooner or later does: one of each kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from painted import paint_frame
from PIL import Image

_SIZE = {"width": 160, "height": 120}
_SAMPLE_RATE = 16000


@dataclass(frozen=True)
class BrokenTruth:
    """One broken file and what must be said of it."""

    #: The clip. When `about` is "caption" the clip is good and the caption beside it is not.
    path: Path
    kind: str
    #: Part of the reason that a check must give.
    reason: str
    about: Literal["clip", "caption"] = "clip"


def make_broken_files(folder: Path | str) -> list[BrokenTruth]:
    """Write one file of each broken kind into `folder`; kinds that the file system can't hold are left out."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truths = []
    for kind, (suffix, reason, make) in BROKEN_CLIPS.items():
        path = folder / f"broken_{kind}{suffix}"
        try:
            make(path)
        except OSError:
            if kind != "dangling_link":  # Windows makes links for privileged users only
                raise
            continue
        path.with_suffix(".txt").write_text("a clip that cannot be used", encoding="utf-8")
        truths.append(BrokenTruth(path, kind, reason))
    for kind, (reason, caption) in _CAPTIONS.items():
        path = folder / f"{kind}.mp4"
        _encode(path, 40)
        if caption is not None:
            path.with_suffix(".txt").write_bytes(caption)
        truths.append(BrokenTruth(path, kind, reason, about="caption"))
    return truths


def _encode(path: Path, frames: int, **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"preset": "veryfast", "crf": "18"} | options)
        stream.width, stream.height, stream.pix_fmt = *_SIZE.values(), "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(paint_frame(number, **_SIZE), format="rgb24")))
        container.mux(stream.encode(None))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut_off(path: Path) -> None:
    _encode(path, 40)
    content = path.read_bytes()  # the index comes last, so half a file has none
    path.write_bytes(content[: len(content) // 2])


def _text(path: Path) -> None:
    path.write_text("404 Not Found: the video that you asked for is gone.\n" * 40, encoding="utf-8")


def _zeroed_header(path: Path) -> None:
    _encode(path, 40)
    content = bytearray(path.read_bytes())
    content[:4096] = bytes(4096)
    path.write_bytes(content)


def _audio_only(path: Path) -> None:
    tone = np.sin(np.arange(_SAMPLE_RATE) * (2 * np.pi * 440 / _SAMPLE_RATE)).astype(np.float32)[None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=_SAMPLE_RATE, layout="mono")
        size = 1024
        for start in range(0, tone.shape[1], size):
            frame = av.AudioFrame.from_ndarray(tone[:, start : start + size], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = _SAMPLE_RATE, start, Fraction(1, _SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _one_frame(path: Path) -> None:
    _encode(path, 1)


def _too_short(path: Path) -> None:
    _encode(path, 3)


def _image(path: Path) -> None:
    Image.fromarray(paint_frame(0, **_SIZE)).save(path, format="PNG")


def _concat_script(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile 'caption_missing.mp4'\n", encoding="utf-8")


def _dangling_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.with_name("moved_away.mp4"))


def _flipped_bytes(path: Path) -> None:
    """Damage in the picture data of every frame, with headers and index intact."""
    _encode(path, 40, g="1")
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    chance = random.Random(0)
    for start, size in spans:
        for _ in range(24):
            content[start + chance.randrange(size // 2, size)] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


#: Kind -> suffix, part of the reason that a check must give, and what writes the file.
BROKEN_CLIPS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "empty": (".mp4", "empty", _empty),
    "cut_off": (".mp4", "cut off", _cut_off),
    "text": (".mp4", "text", _text),
    "zeroed_header": (".mp4", "zero", _zeroed_header),
    "audio_only": (".mp4", "audio only", _audio_only),
    "one_frame": (".mp4", "one frame", _one_frame),
    "too_short": (".mp4", "needed", _too_short),
    "image": (".mp4", "PNG image", _image),
    "concat_script": (".mp4", "text", _concat_script),
    "dangling_link": (".mp4", "link", _dangling_link),
    "flipped_bytes": (".mp4", "damaged", _flipped_bytes),
}
_CAPTIONS: dict[str, tuple[str, bytes | None]] = {
    "caption_not_utf8": ("UTF-8", "ein Vögelchen".encode("latin-1")),
    "caption_empty": ("empty", b""),
    "caption_missing": ("missing", None),
}
