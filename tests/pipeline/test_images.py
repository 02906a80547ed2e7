"""The image loader: values as MGDS gives them, and every way in which a file can be wrong told apart."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wan_fixes.errors import SampleError
from wan_fixes.media import IMAGE_EXTENSIONS
from wan_fixes.pipeline import ValidatedImageLoader
from wan_fixes.pipeline.base import ENGINE

from .toys import Collector, RandomAccess, concept_of, started

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    return str(path)


def load(context, path, *, path_name="image_path", value_range=(0.0, 1.0), **options):
    loader = ValidatedImageLoader(path_name, "image", *value_range, IMAGE_EXTENSIONS, context=context, **options)
    return read_with(loader, path, path_name)


def read_with(loader, path, path_name="image_path"):
    places = RandomAccess(lambda module, variation, index, name: {"mask_path": path}, ("mask_path",), "image_path")
    return started(Collector([concept_of()], [path]), places, loader).read("image", 0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_pixels_are_in_their_range_and_type(context, picture, low, high, dtype):
    image = load(context, picture, value_range=(low, high), dtype=dtype)
    assert image.shape == (3, 6, 8)
    assert image.dtype == (dtype or torch.float32)
    expected = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255 * (high - low) + low
    assert torch.allclose(image.float(), expected, atol=1e-2 if dtype is torch.bfloat16 else 1e-6)


def test_one_channel_for_masks(context, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS[..., 0]).save(path)
    image = load(context, str(path), channels=1)
    assert torch.equal(image[0], torch.from_numpy(PIXELS[..., 0]).float() / 255)
    with pytest.raises(ValueError, match="channels must be 1 or 3, not 2"):
        load(context, str(path), channels=2)


@pytest.mark.skipif(ENGINE != "mgds", reason="the stock class comes with mgds, which is not importable here")
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_those_of_the_stock_module_to_the_bit(context, picture, channels, dtype):
    stock = importlib.import_module("mgds.pipelineModules.LoadImage").LoadImage
    expected = read_with(stock("image_path", "image", 0, 1, IMAGE_EXTENSIONS, channels, dtype), picture)
    assert torch.equal(load(context, picture, channels=channels, dtype=dtype), expected)


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a", "png"])
def test_what_is_no_image_by_its_name_is_somebody_elses(context, tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert load(context, str(tmp_path / name)) is None


def test_a_mask_that_does_not_exist_is_none_and_one_that_is_broken_an_error(context, tmp_path):
    path = tmp_path / "a-masklabel.png"
    assert load(context, str(path), path_name="mask_path") is None
    path.write_bytes(b"")
    with pytest.raises(SampleError, match="the file is empty"):
        load(context, str(path), path_name="mask_path")


BROKEN = {
    "missing": (None, "does not exist"),
    "empty": (b"", "the file is empty"),
    "zeros": (bytes(3000), "all zero"),
    "text": (b"404 Not Found", "a text file"),
    "cut in two": ("cut", "no picture can be read"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_named_with_its_reason(context, picture, tmp_path, kind):
    content, reason = BROKEN[kind]
    path = tmp_path / f"{kind}.png"
    if content is not None:
        path.write_bytes(Path(picture).read_bytes()[:100] if content == "cut" else content)
    with pytest.raises(SampleError, match=reason) as caught:
        load(context, str(path))
    assert (caught.value.path, caught.value.module) == (str(path), "ValidatedImageLoader")
    assert caught.value.fix
    assert caught.value.context["damaged"]


def test_the_limit_on_pixels_is_the_settings_and_not_the_files_fault(contexts, picture):
    with pytest.raises(SampleError, match="8x6 pixels") as caught:
        load(contexts.new(max_pixels_per_frame=47), picture)
    assert not caught.value.context["damaged"]
    assert load(contexts.new(max_pixels_per_frame=48), picture) is not None
