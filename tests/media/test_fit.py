"""Frames scaled and cropped while they are decoded: the same pictures as scaled afterwards, in less memory."""

from __future__ import annotations

import gc
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import write_clip
from mp4_boxes import set_rotation
from torch.nn.functional import interpolate

from wan_fixes.media import Fit, decode_clip, decode_frames, plan_frames, probe

FRAMES = 9


def waves(number: int, width: int, height: int) -> np.ndarray:
    """A picture with coarse and fine structure in all channels."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    channels = (
        60 * np.sin(x / 37 + number / 5) + 50 * np.sin((x + y) / 11),
        60 * np.cos(y / 23) + 50 * np.sin((x - y) / 17 + number / 3),
        80 * np.sin((x * x + y * y) / 90000 + number / 7),
    )
    return np.clip(128 + np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit") / "waves.mp4"
    return write_clip(path, (waves(number, 640, 360) for number in range(FRAMES)), rate=Fraction(24))


def plan_of(path: Path):
    return plan_frames(probe(path), count=FRAMES, fps=None)


@pytest.mark.parametrize("size", [(180, 320), (240, 432), (144, 256), (360, 640), (480, 854)])
def test_it_is_what_scaling_afterwards_gives(clip: Path, size: tuple[int, int]) -> None:
    fitted = decode_clip(clip, plan_of(clip), fit=Fit(size, (0, 0, *size)))
    whole = decode_clip(clip, plan_of(clip))
    assert fitted.shape == (3, FRAMES, *size) and whole.shape == (3, FRAMES, 360, 640)
    afterwards = interpolate(
        torch.from_numpy(whole).flatten(0, 1)[:, None].float(), size, mode="bilinear", antialias=True
    )
    error = (torch.from_numpy(fitted).flatten(0, 1)[:, None].float() - afterwards).square().mean().item()
    assert error == 0 or 10 * np.log10(255**2 / error) >= 40


def test_a_crop_is_a_part_of_the_whole_to_the_bit(clip: Path) -> None:
    whole = decode_clip(clip, plan_of(clip), fit=Fit((180, 320), (0, 0, 180, 320)))
    part = decode_clip(clip, plan_of(clip), fit=Fit((180, 320), (7, 33, 160, 256)))
    assert np.array_equal(part, whole[:, :, 7:167, 33:289])


def test_at_its_own_size_it_is_the_same_as_without(clip: Path) -> None:
    whole = decode_clip(clip, plan_of(clip))
    assert np.array_equal(decode_clip(clip, plan_of(clip), fit=Fit((360, 640), (0, 0, 360, 640))), whole)
    assert np.array_equal(np.moveaxis(decode_frames(clip, plan_of(clip)), -1, 0), whole)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_clip_is_scaled_as_it_is_shown(tmp_path: Path, degrees: int) -> None:
    pictures = [waves(number, 320, 180) for number in range(FRAMES)]
    path = write_clip(tmp_path / "turned.mp4", pictures)
    set_rotation(path, degrees)
    metadata = probe(path)
    shown = decode_clip(path, plan_of(path))
    assert shown.shape[2:] == (metadata.height, metadata.width)
    size = (metadata.height // 2, metadata.width // 2)
    fitted = decode_clip(path, plan_of(path), fit=Fit(size, (0, 0, *size)))
    afterwards = interpolate(torch.from_numpy(shown).flatten(0, 1)[:, None].float(), size, mode="area")
    difference = np.abs(fitted.astype(float) - afterwards.view(3, FRAMES, *size).numpy())
    assert difference.mean() < 4


def test_memory_grows_with_the_target_and_not_with_the_source(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "large.mp4", (waves(number, 1280, 720) for number in range(24)), rate=Fraction(24))
    plan = plan_frames(probe(path), count=24, fps=None)
    tracemalloc.start()
    try:
        fitted = decode_clip(path, plan, fit=Fit((90, 160), (0, 0, 90, 160)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * fitted.nbytes < 24 * 1280 * 720 * 3 / 20


def test_no_frame_outlives_its_use(clip: Path) -> None:
    """PyAV's frames may refer to themselves: then their memory, of which Python sees nothing, stays taken."""
    plan = plan_of(clip)
    gc.collect()
    gc.disable()
    try:
        decode_clip(clip, plan, fit=Fit((90, 160), (0, 0, 90, 160)))
        alive = [thing for thing in gc.get_objects() if issubclass(type(thing), av.VideoFrame)]
    finally:
        gc.enable()
    assert len(alive) <= 1, "the one that told of the orientation"


@pytest.mark.parametrize("crop", [(0, 0, 11, 10), (0, 1, 10, 10), (-1, 0, 5, 5), (0, 0, 0, 5)])
def test_a_crop_that_is_no_part_of_the_picture_is_refused(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="is no part of"):
        Fit((10, 10), crop)
