"""Damage of every sort: nothing but SampleError is ever raised, and a clip that is judged good delivers its frames.

Some damage makes another valid stream of bits: then no decoder can tell, and wrong pictures come out as good. Whatever
shows any sign of damage is rejected (`second_opinion`), and of the formats that show signs, next to nothing gets by.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_clip
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from painted import paint_frame, read_frame_number
from second_opinion import finds_damage

from wan_fixes.errors import SampleError
from wan_fixes.media import decode_frames, plan_frames, probe

_SECONDS = 5.0
_FRAMES = 48
#: As large as clips are that people train on: in a picture of a few blocks, an arithmetic coder can lose its way
#: without ever meeting an impossible value.
_SIZE = {"width": 480, "height": 272}

_X264 = {"preset": "veryfast", "crf": "24"}
_SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "h264": ("a.mp4", {"options": _X264}),
    "h264 with short groups": ("b.mp4", {"options": _X264 | {"bf": "3", "g": "12"}}),
    "h264 of variable rate": ("c.mp4", {"options": _X264, "ticks": list(itertools.accumulate([1, 3, 2, 2, 5] * 10))}),
    "h264 in mkv": ("d.mkv", {"options": _X264, "rate": Fraction(24000, 1001)}),
    "h264 in ts": ("e.ts", {"options": _X264 | {"g": "24"}}),
    "h264 in flv": ("f.flv", {"options": _X264}),
    "mpeg4 in avi": ("g.avi", {"encoder": "mpeg4", "options": {"qscale": "3"}}),
    "mpeg2": ("h.mpeg", {"encoder": "mpeg2video", "options": {"qscale": "3", "g": "12", "bf": "2"}, "rate": 25}),
    "hevc": ("i.mp4", {"encoder": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none"}}),
    "vp9": ("j.webm", {"encoder": "libvpx-vp9", "options": {"crf": "30", "b": "0", "cpu-used": "8"}}),
    "vp8": ("k.webm", {"encoder": "libvpx", "options": {"b": "800k", "cpu-used": "8"}}),
    "av1": ("l.mkv", {"encoder": "libsvtav1", "options": {"preset": "8", "crf": "5"}}),
    "prores": ("m.mov", {"encoder": "prores_ks", "pixel_format": "yuv422p10le", "options": {}}),
    "mjpeg": ("n.avi", {"encoder": "mjpeg", "pixel_format": "yuvj420p", "options": {"qscale": "5"}}),
}
#: Formats of which nearly every stream of bits means some picture.
_MUTE = frozenset({"hevc", "mjpeg", "vp8", "vp9"})


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    made = {}
    for kind, (name, arguments) in _SOURCES.items():
        pictures = (paint_frame(number, **_SIZE) for number in range(_FRAMES))
        made[kind] = write_clip(folder / name, pictures, **{"rate": 24, **arguments})
    return made


def _damage(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    if chance.random() < 0.3:
        del damaged[chance.randrange(len(damaged)) :]
    header_only = chance.random() < 0.5
    for _ in range(chance.choice((1, 4, 32)) if damaged else 0):
        damaged[chance.randrange(min(len(damaged), 4096) if header_only else len(damaged))] = chance.randrange(256)
    if chance.random() < 0.1 and damaged:  # a sector that was never written
        start = chance.randrange(len(damaged)) // 512 * 512
        damaged[start : start + 512] = bytes(min(512, len(damaged) - start))
    if chance.random() < 0.3:  # an mp4 keeps its index at its end
        for at in range(max(0, len(damaged) - 1500), len(damaged)):
            if chance.random() < 0.02:
                damaged[at] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _judge(path: Path, chance: random.Random) -> str:
    """What becomes of one file: "rejected", "good", "mute" when pictures are wrong and nothing tells, or how wrong they
    are in spite of a sign."""
    begin = time.monotonic()
    try:
        metadata = probe(path, deadline=_SECONDS)
        plan = plan_frames(metadata, count=9, fps=chance.choice((None, 16, 24)), rng=chance)
        pictures = decode_frames(path, plan, deadline=_SECONDS)
    except SampleError as error:
        assert error.reason and error.fix and error.path == str(path)
        verdict = "rejected"
    else:
        assert pictures.dtype == np.uint8 and pictures.shape == (9, metadata.height, metadata.width, 3)
        assert list(plan.indices) == sorted(plan.indices) and plan.indices[-1] < metadata.frame_count
        numbers = [read_frame_number(picture) for picture in pictures]
        verdict = "good"
        if not _are_the_planned(numbers, plan.indices):
            verdict = f"{numbers} for {plan.indices}" if finds_damage(path, plan) else "mute"
    assert time.monotonic() - begin < 3 * _SECONDS
    return verdict


def _are_the_planned(numbers: list[int | None], indices: tuple[int, ...]) -> bool:
    """Whether each frame can be read and they follow each other: the file may have lost whole frames."""
    if None in numbers:
        return False
    steps = zip(itertools.pairwise(numbers), itertools.pairwise(indices), strict=True)
    return all(b > a if j > i else b == a for (a, b), (i, j) in steps)


@settings(max_examples=times(80, 200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(_SOURCES)), seed=st.integers(0, 2**32))
def test_a_damaged_clip_is_rejected_or_delivers_its_frames(
    sources: dict[str, Path], tmp_path: Path, kind: str, seed: int
):
    chance = random.Random(seed)
    path = tmp_path / f"damaged{sources[kind].suffix}"
    path.write_bytes(_damage(sources[kind].read_bytes(), chance))
    assert _judge(path, chance) in ("rejected", "good", "mute")


@pytest.mark.parametrize("kind", _SOURCES)
def test_an_undamaged_clip_is_good(sources: dict[str, Path], kind: str):
    for seed in range(5):
        assert _judge(sources[kind], random.Random(seed)) == "good"


@pytest.mark.full
@pytest.mark.parametrize("block", range(20))
def test_much_more_damage(sources: dict[str, Path], tmp_path: Path, block: int):
    verdicts: Counter[tuple[str, str]] = Counter()
    for seed in range(block * 500, (block + 1) * 500):
        chance = random.Random(seed)
        kind = chance.choice(sorted(_SOURCES))
        path = tmp_path / f"damaged{sources[kind].suffix}"
        path.write_bytes(_damage(sources[kind].read_bytes(), chance))
        verdicts[kind, _judge(path, chance)] += 1
    assert not {key for key in verdicts if key[1] not in ("rejected", "good", "mute")}
    got_by = sum(count for (kind, verdict), count in verdicts.items() if verdict == "mute" and kind not in _MUTE)
    assert got_by <= 3  # of about 360
