"""The plain modules: the same buckets and crops as MGDS's, and choices that hang on content alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wan_fixes.hosts.standalone.bucket_sizes import bucket_sizes, covering_size, nearest_bucket
from wan_fixes.hosts.standalone.modules import (
    AspectBucketing,
    GetFilename,
    ImageToVideo,
    ModifyPath,
    RandomFlip,
    SelectInput,
    SelectRandomText,
    ShuffleTags,
)
from wan_fixes.media import Fit, MediaReader, decode_clip, plan_frames, probe
from wan_fixes.pipeline import (
    PipelineContext,
    RobustVideoLoader,
    ValidatedCollectPaths,
    ValidatedImageLoader,
)
from wan_fixes.pipeline.base import (
    MGDS,
    OutputPipelineModule,
    PipelineModule,
    PipelineState,
    RandomAccessPipelineModule,
)
from wan_fixes.pipeline.scale_crop import MeasuredAspect, SafeScaleCrop, scale

CONCEPT: dict[str, Any] = {
    "name": "c",
    "enabled": True,
    "include_subdirectories": False,
    "image": {
        "enable_crop_jitter": False,
        "enable_random_flip": False,
        "enable_fixed_flip": False,
        "enable_resolution_override": False,
        "resolution_override": "512",
    },
    "text": {
        "prompt_source": "filename",
        "enable_tag_shuffling": False,
        "tag_delimiter": ",",
        "keep_tags_count": 1,
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """A concept with changes to its nested settings."""
    concept = json.loads(json.dumps(CONCEPT))
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            concept[section][field] = value
        else:
            concept[section] = value
    return concept


class Harness:
    """A pipeline from a folder of pictures through some modules."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.context = PipelineContext.create(cache)
        self.loader = RobustVideoLoader(
            "image_path", "settings.target_frames", "image", -1.0, 1.0, None, {".mp4"}, context=self.context
        )

    def run(self, modules: list[Any], names: list[str], concept: dict[str, Any], **target: str) -> list[dict[str, Any]]:
        collect = ValidatedCollectPaths(
            concept_in_name="concept",
            path_in_name="path",
            include_subdirectories_in_name="concept.include_subdirectories",
            enabled_in_name="enabled",
            path_out_name="image_path",
            concept_out_name="concept",
            extensions={".png", ".mp4"},
            include_postfix=None,
            exclude_postfix=None,
            context=self.context,
        )
        load = ValidatedImageLoader("image_path", "image", -1.0, 1.0, {".png"}, context=self.context)
        dataset = MGDS(
            torch.device("cpu"),
            [{**concept, "path": str(self.folder)}],
            {"target_resolution": "64", "target_frames": "1", **target},
            [
                collect,
                load,
                self.loader,
                ImageToVideo("image", "image"),
                *modules,
                OutputPipelineModule(["image_path", *names]),
            ],
            1,
            PipelineState(1),
        )
        dataset.start_next_epoch()
        return list(dataset)


class Keep(PipelineModule, RandomAccessPipelineModule):
    """The picture as it was loaded, under another name."""

    def length(self) -> int:
        return int(self._get_previous_length("image"))

    def get_inputs(self) -> list[str]:
        return ["image"]

    def get_outputs(self) -> list[str]:
        return ["whole"]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {"whole": self._get_previous_item(variation, "image", index)}


def paint(folder: Path, name: str, width: int, height: int, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "pictures", tmp_path / "cache")


def bucketing(harness: Harness, **options: Any) -> list[Any]:
    return [
        MeasuredAspect("image", "original_resolution", loader=harness.loader),
        AspectBucketing(
            quantization=options.pop("quantization", 16),
            resolution_in_name="original_resolution",
            target_resolution_in_name="settings.target_resolution",
            enable_target_resolutions_override_in_name="concept.image.enable_resolution_override",
            target_resolutions_override_in_name="concept.image.resolution_override",
            scale_resolution_out_name="scale_resolution",
            crop_resolution_out_name="crop_resolution",
            context=harness.context,
            **options,
        ),
    ]


def cropping(harness: Harness) -> SafeScaleCrop:
    return SafeScaleCrop(
        names=["image"],
        scale_resolution_in_name="scale_resolution",
        crop_resolution_in_name="crop_resolution",
        enable_crop_jitter_in_name="concept.image.enable_crop_jitter",
        crop_offset_out_name="crop_offset",
        loader=harness.loader,
        context=harness.context,
    )


def test_a_picture_becomes_a_clip_of_one_frame_scaled_and_cropped_from_the_middle(harness):
    paint(harness.folder, "a.png", 100, 50)
    modules = [Keep(), *bucketing(harness), cropping(harness)]
    names = ["original_resolution", "scale_resolution", "crop_resolution", "crop_offset", "image", "whole"]
    (item,) = harness.run(modules, names, CONCEPT)
    assert item["original_resolution"] == (1, 50, 100)
    assert item["crop_resolution"] == (1, 48, 96)
    assert item["scale_resolution"] == (1, 48, 96)
    assert item["crop_offset"] == (0, 0)
    assert item["image"].shape == (3, 1, 48, 96)
    expected = torch.nn.functional.interpolate(item["whole"], size=(48, 96), mode="bilinear", antialias=True)
    assert torch.equal(item["image"], expected)


def test_a_clip_is_decoded_at_the_size_of_its_bucket_and_never_at_its_own(harness, monkeypatch):
    from clips import write_clip
    from painted import paint_frame

    harness.folder.mkdir()
    pictures = [paint_frame(number, width=200, height=100) for number in range(12)]
    path = write_clip(harness.folder / "a.mp4", pictures)
    fits = []
    decode = MediaReader.decode

    def noting(*arguments: Any, **options: Any) -> Any:
        fits.append(options["fit"])
        return decode(*arguments, **options)

    monkeypatch.setattr(MediaReader, "decode", noting)
    names = ["original_resolution", "crop_resolution", "image"]
    (item,) = harness.run([*bucketing(harness), cropping(harness)], names, CONCEPT, target_frames="9")
    assert item["original_resolution"] == (9, 100, 200)
    assert item["crop_resolution"] == (9, 48, 96)
    assert fits == [Fit((48, 96), (0, 0, 48, 96))]

    plan = plan_frames(probe(path), count=9, fps=None, rng=harness.context.rng(0, str(path), "window"))
    expected = decode_clip(path, plan, fit=fits[0])
    assert torch.equal(item["image"], torch.from_numpy(expected).float() / 255 * 2 - 1)


def test_a_fixed_size_is_width_by_height(harness):
    paint(harness.folder, "a.png", 100, 50)
    (item,) = harness.run(bucketing(harness), ["crop_resolution"], CONCEPT, target_resolution="96x32")
    assert item["crop_resolution"] == (1, 32, 96)


def test_a_concepts_own_resolution_wins_where_it_is_enabled(harness):
    paint(harness.folder, "a.png", 64, 64)
    concept = changed(image__enable_resolution_override=True, image__resolution_override="32")
    (item,) = harness.run(bucketing(harness), ["crop_resolution"], concept)
    assert item["crop_resolution"] == (1, 32, 32)


def test_without_bucketing_every_clip_becomes_a_square(harness):
    paint(harness.folder, "a.png", 100, 50)
    modules = bucketing(harness, squares_only=True)
    (item,) = harness.run(modules, ["scale_resolution", "crop_resolution"], CONCEPT)
    assert item["crop_resolution"] == (1, 64, 64)
    assert item["scale_resolution"] == (1, 64, 128)


def test_one_of_several_targets_is_drawn_for_each_picture(harness):
    for number in range(20):
        paint(harness.folder, f"{number}.png", 32, 32, seed=number)
    items = harness.run(bucketing(harness), ["crop_resolution"], CONCEPT, target_resolution="32, 64")
    assert {item["crop_resolution"] for item in items} == {(1, 32, 32), (1, 64, 64)}


def flip(context: PipelineContext) -> RandomFlip:
    return RandomFlip(
        image_in_name="image",
        image_out_name="flipped",
        enabled_in_name="concept.image.enable_random_flip",
        fixed_enabled_in_name="concept.image.enable_fixed_flip",
        context=context,
    )


def test_flips_are_as_the_concept_asks(harness):
    for number in range(20):
        paint(harness.folder, f"{number}.png", 8, 8, seed=number)

    def flipped(**changes: Any) -> list[bool]:
        items = harness.run([flip(harness.context)], ["image", "flipped"], changed(**changes))
        mirrored = [torch.equal(item["flipped"], item["image"].flip(-1)) for item in items]
        untouched = [torch.equal(item["flipped"], item["image"]) for item in items]
        assert all(one != other for one, other in zip(mirrored, untouched, strict=True))
        return mirrored

    assert not any(flipped())
    assert all(flipped(image__enable_fixed_flip=True))
    assert 2 < sum(flipped(image__enable_random_flip=True)) < 18


def test_choices_hang_on_content_and_not_on_the_place_in_the_list(harness, tmp_path):
    for number in range(8):
        paint(harness.folder, f"{number}.png", 40, 24, seed=number)
    concept = changed(image__enable_crop_jitter=True, image__enable_random_flip=True)

    def crops(harness: Harness) -> dict[str, torch.Tensor]:
        modules = [*bucketing(harness), cropping(harness), flip(harness.context)]
        items = harness.run(modules, ["image", "flipped"], concept, target_resolution="16x16")
        return {Path(item["image_path"]).name: (item["image"], item["flipped"]) for item in items}

    before = crops(harness)
    (harness.folder / "0.png").unlink()
    (harness.folder / "1.png").rename(harness.folder / "z.png")
    after = crops(Harness(harness.folder, tmp_path / "other cache"))
    assert torch.equal(after["z.png"][0], before["1.png"][0])
    for name in ("2.png", "7.png"):
        assert all(torch.equal(a, b) for a, b in zip(after[name], before[name], strict=True))


def test_crop_jitter_moves_the_window(harness):
    for number in range(12):
        paint(harness.folder, f"{number}.png", 64, 16, seed=5 + number)
    modules = [Keep(), *bucketing(harness), cropping(harness)]
    names = ["whole", "image", "crop_offset"]
    items = harness.run(modules, names, changed(image__enable_crop_jitter=True), target_resolution="16x16")
    offsets = set()
    for item in items:
        matching = [x for x in range(49) if torch.equal(item["whole"][..., x : x + 16], item["image"])]
        assert [(0, x) for x in matching] == [item["crop_offset"]]
        offsets.add(matching[0])
    assert len(offsets) > 4


def test_prompts_come_from_the_source_that_the_concept_names(harness):
    paint(harness.folder, "a red ball.png", 8, 8)
    modules = [
        ModifyPath("image_path", "sample_prompt_path", "-label", ".txt"),
        GetFilename("image_path", "filename_prompt"),
        SelectInput(
            "concept.text.prompt_source", "prompts", {"sample": "sample_prompt_path", "filename": "filename_prompt"}
        ),
        SelectRandomText("prompts", "prompt", context=harness.context),
    ]
    (item,) = harness.run(modules, ["prompt"], CONCEPT)
    assert item["prompt"] == "a red ball"
    (item,) = harness.run(modules, ["prompt"], changed(text__prompt_source="sample"))
    assert item["prompt"] == str(harness.folder / "a red ball-label.txt")


def test_shuffled_tags_are_the_same_tags_and_the_first_stay(harness):
    paint(harness.folder, "one, two, three, four, five, six.png", 8, 8)
    modules = [
        GetFilename("image_path", "prompt"),
        ShuffleTags(
            text_in_name="prompt",
            enabled_in_name="concept.text.enable_tag_shuffling",
            delimiter_in_name="concept.text.tag_delimiter",
            keep_tags_count_in_name="concept.text.keep_tags_count",
            text_out_name="shuffled",
            context=harness.context,
        ),
    ]
    concept = changed(text__enable_tag_shuffling=True, text__keep_tags_count=2)
    (item,) = harness.run(modules, ["prompt", "shuffled"], concept)
    tags = item["shuffled"].split(", ")
    assert tags[:2] == ["one", "two"]
    assert sorted(tags) == sorted(item["prompt"].split(", "))
    assert item["shuffled"] != item["prompt"]
    (item,) = harness.run(modules, ["prompt", "shuffled"], CONCEPT)
    assert item["shuffled"] == item["prompt"]


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    side=st.sampled_from([64, 256, 480, 512, 832]),
    quantization=st.sampled_from([16, 32]),
)
def test_the_scaled_picture_always_covers_a_bucket_that_the_model_takes(height, width, side, quantization):
    crop = nearest_bucket(height / width, bucket_sizes(side, quantization))
    scaled = covering_size((height, width), crop)
    assert crop[0] % quantization == crop[1] % quantization == 0
    assert scaled[0] >= crop[0]
    assert scaled[1] >= crop[1]
    assert scaled[0] == crop[0] or scaled[1] == crop[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scaling_keeps_the_dtype_and_takes_every_one_that_a_vae_has(dtype):
    image = torch.rand(3, 2, 16, 24)
    scaled = scale(image.to(dtype), (8, 12))
    assert (scaled.dtype, scaled.shape) == (dtype, (3, 2, 8, 12))
    torch.testing.assert_close(scaled.float(), scale(image, (8, 12)), atol=0.01, rtol=0)


def test_scaling_to_the_same_size_changes_no_pixel():
    image = torch.rand(3, 2, 16, 16)
    assert scale(image, (16, 16)) is image


_STOCK = """
import json, sys
from types import SimpleNamespace
from mgds.pipelineModules.AspectBucketing import AspectBucketing
cases = json.load(sys.stdin)
answers = []
for height, width, target, quantization in cases:
    module = AspectBucketing(quantization, "r", "t", None, None, "f", True, "s", "c", "p")
    items = {"r": (9, height, width), "t": target, "f": "9"}
    module._get_previous_item = lambda variation, name, index: items[name]
    module._get_previous_length = lambda name: 1
    module.init(SimpleNamespace(modules=[]), 0, 0, None)
    module.start(0)
    item = module.get_item(0, 0)
    answers.append([item["s"], item["c"]])
json.dump(answers, sys.stdout)
"""


@pytest.mark.host
@pytest.mark.skipif("WAN_FIXES_MGDS" not in os.environ, reason="needs an MGDS checkout: WAN_FIXES_MGDS")
def test_buckets_are_those_of_real_mgds():
    rng = np.random.default_rng(0)
    targets = ["256", "480", "512", "832x480", "500x333"]
    cases = [
        [int(rng.integers(90, 2200)), int(rng.integers(90, 2200)), targets[i % len(targets)], [16, 32][i % 2]]
        for i in range(400)
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(os.environ["WAN_FIXES_MGDS"]) / "src")}
    result = subprocess.run(
        [sys.executable, "-c", _STOCK], input=json.dumps(cases), env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for (height, width, target, quantization), (scaled, crop) in zip(cases, json.loads(result.stdout), strict=True):
        if "x" in target:
            size = tuple(round(int(part) / quantization) * quantization for part in reversed(target.split("x")))
        else:
            size = nearest_bucket(height / width, bucket_sizes(int(target), quantization))
        assert (9, *size) == tuple(crop)
        assert (9, *covering_size((height, width), size)) == tuple(scaled)
