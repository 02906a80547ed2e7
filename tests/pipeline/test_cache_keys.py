"""What makes a cache entry a new one, counted in encodes: content and settings do, names and places do not."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

import pytest
import torch

from wan_fixes.pipeline import EnhancedSafePipelineModule, SampleRoster, fingerprint
from wan_fixes.pipeline.fingerprint import read_recipe, weight_hash

from .toys import Collector, concept_of
from .world import Encoder, Measure, Step, Tokenizer, World, concept_over, no_fault, trained, write_sample

NUMBERS = range(1, 6)
NOTHING = ([], [])
EVERYTHING = [(number, 0) for number in NUMBERS]


@pytest.fixture
def folder(tmp_path):
    for number in NUMBERS:
        write_sample(tmp_path / "clips", number)
    return tmp_path / "clips"


@pytest.fixture
def start(context, tmp_path, folder):
    """A start of the program: the epoch's numbers, and what image and text encoder made for it."""

    def run(*, concepts=None, change=lambda world: None, epochs=1, **options):
        fresh = replace(context, roster=SampleRoster())
        world = World(fresh, tmp_path / "cache", concepts or [concept_over(folder)], **options)
        change(world)
        numbers = [sorted(trained(world.epoch()).elements()) for _ in range(epochs)]
        return numbers[-1], world.encoded()

    return run


def move(folder, number, name):
    for suffix in (".num", ".txt"):
        (folder / f"clip{number}{suffix}").rename(folder / f"{name}{suffix}")


# What changes nothing


def test_a_first_start_makes_everything_and_a_second_nothing(start):
    assert start() == ([*NUMBERS], (EVERYTHING, EVERYTHING))
    assert start() == ([*NUMBERS], NOTHING)


def rename_one(folder):
    move(folder, 2, "another name")


def rename_so_that_the_order_is_reversed(folder):
    for number in NUMBERS:
        move(folder, number, f"{9 - number}")


def touch_all(folder):
    for path in folder.iterdir():
        os.utime(path, (time.time() - 1000, time.time() - 1000))


def rewrite_all(folder):
    for path in folder.iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)


def space_around_captions(folder):
    for path in folder.glob("*.txt"):
        path.write_text(f"\n  {path.read_text()}  \n\n")


@pytest.mark.parametrize(
    "change", [rename_one, rename_so_that_the_order_is_reversed, touch_all, rewrite_all, space_around_captions]
)
def test_names_times_and_order_change_nothing(start, folder, change):
    start()
    change(folder)
    assert start() == ([*NUMBERS], NOTHING)


def test_a_folder_that_is_renamed_or_copied_changes_nothing(start, folder, tmp_path):
    start()
    shutil.copytree(folder, tmp_path / "copy")
    assert start(concepts=[concept_over(tmp_path / "copy")]) == ([*NUMBERS], NOTHING)
    folder.rename(tmp_path / "renamed")
    assert start(concepts=[concept_over(tmp_path / "renamed")]) == ([*NUMBERS], NOTHING)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"balancing": 2.0},
        {"loss_weight": 0.5},
        {"text": {"a": 1}},
        {"image": {"unused": 1}},
        {"note": "x"},
    ],
)
def test_what_the_concept_says_of_other_things_changes_nothing(start, folder, changes):
    start()
    assert start(concepts=[concept_over(folder, **changes)])[1] == NOTHING


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"seed": 99}, {"threads": 4}, {"settings": {"unused": 3}}])
def test_how_it_is_run_changes_nothing(start, options):
    start()
    assert start(**options) == ([*NUMBERS], NOTHING)


def test_files_in_two_concepts_share_their_entries(start, folder, tmp_path):
    start()
    shutil.copytree(folder, tmp_path / "copy")
    both = [concept_over(folder), concept_over(tmp_path / "copy")]
    assert start(concepts=both) == (sorted([*NUMBERS, *NUMBERS]), NOTHING)


def test_a_file_that_is_removed_changes_nothing_for_the_others(start, folder):
    start()
    for path in folder.glob("clip2.*"):
        path.unlink()
    assert start() == ([1, 3, 4, 5], NOTHING)


def test_what_was_there_before_is_there_again(start, folder):
    start()
    caption = folder / "clip2.txt"
    before = caption.read_text()
    caption.write_text("another caption 2")
    start()
    caption.write_text(before)
    assert start() == ([*NUMBERS], NOTHING)


# What makes new entries, and exactly which


def test_a_file_that_is_added_is_all_that_is_made(start, folder):
    start()
    write_sample(folder, 9, name="a comes first")
    assert start() == ([*NUMBERS, 9], ([(9, 0)], [(9, 0)]))


def test_content_that_changes_is_made_anew_but_not_its_caption(start, folder):
    start()
    (folder / "clip2.num").write_text("2 \n")
    assert start() == ([*NUMBERS], ([(2, 0)], []))


def test_a_caption_that_changes_is_made_anew_but_not_its_clip(start, folder):
    start()
    (folder / "clip4.txt").write_text("quite another caption 4")
    assert start() == ([*NUMBERS], ([], [(4, 0)]))


def test_files_that_change_places_are_known_again(start, folder):
    """The stock cache trains each with the other's caption."""
    start()
    for suffix in (".num", ".txt"):
        one, other = folder / f"clip1{suffix}", folder / f"clip2{suffix}"
        texts = one.read_text(), other.read_text()
        one.write_text(texts[1])
        other.write_text(texts[0])
    assert start() == ([*NUMBERS], NOTHING)


def with_other_weights(name):
    def change(world):
        with torch.no_grad():
            getattr(world, name).network.bias += 0.5

    return change


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"change": with_other_weights("image_encoder")}, (EVERYTHING, [])),
        ({"change": with_other_weights("text_encoder")}, ([], EVERYTHING)),
        ({"settings": {"target_resolution": "128"}}, (EVERYTHING, [])),
        ({"buckets": 2}, (EVERYTHING, [])),
        ({"image_names": ("latent_image", "image")}, (EVERYTHING, [])),
    ],
)
def test_what_shapes_the_tensors_makes_them_anew(start, options, made):
    start()
    assert start(**options) == ([*NUMBERS], made)
    assert start(**options) == ([*NUMBERS], NOTHING)
    assert start() == ([*NUMBERS], NOTHING), "what was made before is still there"


def test_the_concepts_settings_count_for_the_modules_that_read_them(start, folder):
    start()
    concepts = [concept_over(folder, image={"resolution_override": "96"})]
    assert start(concepts=concepts) == ([*NUMBERS], (EVERYTHING, []))


def test_each_variation_is_made_when_its_turn_comes(start, folder):
    start()
    concepts = [concept_over(folder, image_variations=2)]
    assert start(concepts=concepts) == ([*NUMBERS], NOTHING)
    second = [(number, 1) for number in NUMBERS]
    assert start(concepts=concepts, epochs=2) == ([*NUMBERS], (second, []))
    assert start(concepts=concepts, epochs=5) == ([*NUMBERS], NOTHING)


def test_raising_the_version_of_the_pipeline_makes_everything_anew(start, monkeypatch):
    start()
    monkeypatch.setattr(fingerprint, "PIPELINE_VERSION", fingerprint.PIPELINE_VERSION + 1)
    assert start() == ([*NUMBERS], (EVERYTHING, EVERYTHING))


# The recipe


def test_a_recipe_holds_what_lies_on_the_way_and_nothing_else():
    modules = [
        Collector([concept_of()]),
        Step("image_path", "image", lambda value, variation: value),
        Measure(3),
        Encoder("image", "latent_image", no_fault),
        Step("image_path", "prompt", lambda value, variation: value),
        Tokenizer(),
        Encoder("tokens", "hidden", no_fault),
    ]
    image = read_recipe(modules, len(modules), ["latent_image", "crop_resolution"])
    assert [module["type"] for module in image.modules] == ["Step", "Measure", "Encoder"]
    assert image.modules[1]["settings"] == {"buckets": 3}
    assert image.setting_names == ["concept.image.resolution_override", "settings.target_resolution"]
    assert len(image.encoders) == 1
    text = read_recipe(modules, len(modules), ["hidden"])
    assert [module["type"] for module in text.modules] == ["Tokenizer", "Encoder"]
    assert text.values == [(5, "prompt")]
    assert text.setting_names == []


def test_guards_are_not_part_of_a_recipe(context):
    def modules(wrap):
        return [Collector([concept_of()]), wrap(Measure(3)), wrap(Encoder("image_path", "latent_image", no_fault))]

    def recipe(wrap):
        return read_recipe(modules(wrap), 3, ["latent_image", "crop_resolution"]).modules

    guard = lambda module: EnhancedSafePipelineModule(module, "any name", context=context)  # noqa: E731
    assert recipe(guard) == recipe(lambda module: module) == recipe(lambda module: guard(guard(module)))


class FileName(Step):
    def __init__(self):
        super().__init__("image_path", "filename_prompt", lambda path, variation: path)
        self.path_in_name = "image_path"
        self.filename_out_name = "filename_prompt"


def test_of_a_file_name_used_as_a_prompt_the_name_counts_and_not_the_content():
    modules = [Collector([concept_of()]), FileName(), Encoder("filename_prompt", "hidden", no_fault)]
    recipe = read_recipe(modules, 3, ["hidden"])
    assert (recipe.files, recipe.values) == ([], [(2, "filename_prompt")])


# Weights


def network(**changes):
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    for name, change in changes.items():
        change(made[0] if name == "linear" else made[1])
    return made


def half(module):
    module.half()


def nudge(module):
    with torch.no_grad():
        module.weight.view(-1)[-1] += 1e-6


def buffer(module):
    module.running_mean[0] += 1


def transpose(module):
    module.weight = torch.nn.Parameter(module.weight.view(2, 3))


@pytest.mark.parametrize("changes", [{"linear": nudge}, {"linear": half}, {"norm": buffer}, {"linear": transpose}])
def test_networks_that_differ_in_anything_have_another_hash(changes):
    assert weight_hash(network()) == weight_hash(network())
    assert weight_hash(network(**changes)) != weight_hash(network())


def test_a_network_without_data_or_in_bfloat16_has_a_hash():
    assert len(weight_hash(network().bfloat16())) == 32
    assert len(weight_hash(network().to("meta"))) == 32
