"""A cache keeps tensors apart by what they are for: a training that needs one more of them makes that one only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wan_fixes.pipeline import SampleRoster
from wan_fixes.pipeline.pixels import too_little_memory
from wan_fixes.pipeline.sample_keys import split_by_purpose

from .toys import Collector, RandomAccess, concept_of, events_of
from .world import NAN, Encoder, Measure, Step, World, concept_over, no_fault, trained, write_sample

NUMBERS = range(1, 6)
EVERYTHING = [(number, 0) for number in NUMBERS]


@pytest.fixture
def start(context, tmp_path):
    """A start of the program, with two epochs: the second one's numbers, and the world."""
    for number in NUMBERS:
        write_sample(tmp_path / "clips", number)

    def run(**options):
        fresh = replace(context, roster=SampleRoster())
        world = World(fresh, tmp_path / "cache", [concept_over(tmp_path / "clips")], **options)
        world.epoch()
        samples = world.epoch()
        if "condition_fault" in options:
            assert all(torch.equal(sample["condition"], sample["latent_image"]) for sample in samples)
        return sorted(trained(samples)), world

    return run


def test_one_more_tensor_is_all_that_is_made(start):
    assert start()[1].image_encoder.made == EVERYTHING
    numbers, world = start(condition_fault=no_fault)
    assert (numbers, world.image_encoder.made, world.condition_encoder.made) == ([*NUMBERS], [], EVERYTHING)
    for options in ({"condition_fault": no_fault}, {}):
        numbers, world = start(**options)
        assert (numbers, world.image_encoder.made, world.condition_encoder.made) == ([*NUMBERS], [], [])
        assert world.loader.loaded == []


@pytest.mark.parametrize("threads", [1, 3])
def test_a_clip_is_loaded_once_for_all_of_its_parts(start, threads):
    _, world = start(condition_fault=no_fault, threads=threads)
    assert (world.image_encoder.made, world.condition_encoder.made) == (EVERYTHING, EVERYTHING)
    assert sorted(world.loader.loaded) == [*NUMBERS]


@pytest.mark.parametrize("fault", [NAN, "none", RuntimeError("broken")])
@pytest.mark.parametrize("kind", ["image_fault", "condition_fault"])
def test_a_sample_that_fails_in_one_part_is_out_with_all_of_them(start, kind, fault):
    def fails(number, variation):
        return fault if number == 2 else None

    numbers, world = start(**{"condition_fault": no_fault, kind: fails})
    assert numbers == [1, 3, 4, 5]
    assert sorted(world.loader.loaded) == [*NUMBERS], "nothing is tried for a part whose sample is out"
    numbers, world = start(condition_fault=no_fault)
    made = [] if kind == "condition_fault" else [(2, 0)]
    assert (numbers, world.image_encoder.made, world.condition_encoder.made) == ([*NUMBERS], made, [(2, 0)])


def test_memory_that_a_sample_lacks_is_not_asked_for_again_for_each_of_its_parts(start):
    def lacks(number, variation):
        return too_little_memory(None) if number == 2 else None

    numbers, world = start(condition_fault=no_fault, image_fault=lacks)
    assert numbers == [1, 3, 4, 5]
    assert len(events_of(world.context, "reconfigured")) == 1
    assert (2, 0) not in world.condition_encoder.made


def test_of_a_damaged_part_that_alone_is_made_anew(start):
    _, world = start()
    old = set(world.image_cache.store.keys())
    _, world = start(condition_fault=no_fault)
    (key, *_) = sorted(set(world.image_cache.store.keys()) - old)
    path = world.image_cache.store.folder / "entries" / key[:2] / f"{key}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    numbers, world = start(condition_fault=no_fault)
    assert (numbers, world.image_encoder.made) == ([*NUMBERS], [])
    assert len(world.condition_encoder.made) == 1


def split(first, names):
    modules = [
        Collector([concept_of()]),
        first,
        Measure(3),
        Encoder("image", "latent", no_fault),
        Encoder("image", "condition", no_fault),
        Step("latent", "mask", lambda value, variation: value),
    ]
    return split_by_purpose(modules, len(modules), names)


def test_what_no_encoder_makes_goes_with_the_first_that_one_makes():
    step = Step("image_path", "image", lambda value, variation: value)
    names = ["crop_resolution", "condition", "latent", "image", "mask"]
    assert split(step, names) == [["crop_resolution", "condition", "image"], ["latent"], ["mask"]]
    assert split(step, ["latent", "crop_resolution"]) == [["latent", "crop_resolution"]]
    assert split(step, ["image", "crop_resolution"]) == [["image", "crop_resolution"]]


def test_where_somebody_may_draw_by_the_place_in_the_list_everything_stays_together():
    stranger = RandomAccess(lambda *_: {}, ("image",))
    assert split(stranger, ["latent", "condition"]) == [["latent", "condition"]]
