"""Damage of every sort: nothing but SampleError is ever raised, and what is delivered has the promised shape."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from clips import ClipTruth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan_fixes.errors import SampleError
from wan_fixes.media import decode_frames, plan_frames, probe

_SECONDS = 5.0


def _read_damaged(source: Path, target: Path, damage: random.Random) -> None:
    content = bytearray(source.read_bytes())
    if damage.random() < 0.3:
        del content[damage.randrange(len(content)) :]
    header_only = damage.random() < 0.5
    for _ in range(damage.choice((1, 4, 32)) if content else 0):
        content[damage.randrange(min(len(content), 4096) if header_only else len(content))] = damage.randrange(256)
    if damage.random() < 0.3:  # an mp4 keeps its index at its end
        for at in range(max(0, len(content) - 1500), len(content)):
            if damage.random() < 0.02:
                content[at] ^= 1 << damage.randrange(8)
    target.write_bytes(content)

    begin = time.monotonic()
    try:
        metadata = probe(target, deadline=_SECONDS)
        plan = plan_frames(metadata, count=9, fps=damage.choice((None, 16, 24)), rng=damage)
        pictures = decode_frames(target, plan, deadline=_SECONDS)
    except SampleError as error:
        assert error.reason and error.fix and error.path == str(target)
    else:
        assert pictures.dtype == np.uint8 and pictures.shape == (9, metadata.height, metadata.width, 3)
        assert list(plan.indices) == sorted(plan.indices) and plan.indices[-1] < metadata.frame_count
    assert time.monotonic() - begin < 3 * _SECONDS


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_damaged_clips_raise_nothing_but_a_sample_error(
    good_clips: list[ClipTruth], tmp_path: Path, data: st.DataObject, seed: int
):
    source = data.draw(st.sampled_from(good_clips)).path
    _read_damaged(source, tmp_path / f"damaged{source.suffix}", random.Random(seed))


@pytest.mark.full
@pytest.mark.parametrize("block", range(20))
def test_much_more_damage(good_clips: list[ClipTruth], tmp_path: Path, block: int):
    for seed in range(block * 500, (block + 1) * 500):
        damage = random.Random(seed)
        source = damage.choice(good_clips).path
        _read_damaged(source, tmp_path / f"damaged{source.suffix}", damage)
