"""Memory of clips is used again once nothing refers to it, never before, and is given back when asked."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from wan_fixes.pipeline import pixel_memory
from wan_fixes.pipeline.pixels import to_range

SHAPE = (3, 9, 480, 832)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    gc.collect()
    pixel_memory.release()
    yield
    pixel_memory.release()


def test_memory_is_used_again_once_nothing_refers_to_it():
    one = pixel_memory.empty(SHAPE, torch.bfloat16)
    place = one.data_ptr()
    part = one[1, 3]
    del one
    assert pixel_memory.empty(SHAPE, torch.bfloat16).data_ptr() != place, "a part of it is still in use"
    part.fill_(1)
    del part
    pixel_memory.release()
    one = pixel_memory.empty(SHAPE, torch.bfloat16)
    place = one.data_ptr()
    del one
    other = pixel_memory.empty(SHAPE, torch.int16)
    assert other.data_ptr() == place and other.shape == SHAPE and other.dtype == torch.int16


def test_what_is_in_use_is_never_given_away():
    clips = [pixel_memory.empty(SHAPE, torch.bfloat16).fill_(number) for number in range(5)]
    del clips[2]
    clips += [pixel_memory.empty(SHAPE, torch.bfloat16).fill_(number) for number in range(5, 8)]
    assert [int(clip[0, 0, 0, 0]) for clip in clips] == [0, 1, 3, 4, 5, 6, 7]
    assert all(bool((clip == clip[0, 0, 0, 0]).all()) for clip in clips)


def test_no_more_is_kept_than_the_limit_and_nothing_after_release(monkeypatch: pytest.MonkeyPatch):
    size = 2 * 3 * 9 * 480 * 832
    monkeypatch.setattr(pixel_memory, "_MOST_BYTES", 2 * size)
    clips = [pixel_memory.empty(SHAPE, torch.bfloat16) for _ in range(5)]
    clips.clear()
    assert len(pixel_memory._unused) == 2
    pixel_memory.release()
    assert pixel_memory._unused == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_values_agree_with_mgds_to_the_bit(dtype: torch.dtype, low: float, high: float):
    pixels = torch.randint(0, 256, SHAPE, dtype=torch.uint8)
    expected = pixels.to(dtype).div_(255).mul_(high - low).add_(low)
    for _ in range(2):  # in fresh memory, and in memory that was used
        assert torch.equal(to_range(pixels, low, high, dtype), expected)
    assert torch.equal(to_range(pixels.transpose(0, 1), low, high, dtype), expected.transpose(0, 1))
