"""A start says which entries it needs, and for which concept: what other starts need stays needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from .world import World, concept_over, trained, write_sample


@pytest.fixture
def make(context, tmp_path):
    """A world over folders of numbers and one cache; each call stands for a start."""
    worlds = {"cats": range(1, 4), "dogs": range(4, 6)}
    for name, numbers in worlds.items():
        for number in numbers:
            write_sample(tmp_path / name, number)

    def make_world(*names, fills_cache=True, concept=None, **options):
        fresh = replace(context, roster=type(context.roster)(), fills_cache=fills_cache)
        concepts = [concept_over(tmp_path / name) | (concept or {}) for name in names]
        return World(fresh, tmp_path / "cache", concepts, **options)

    return make_world


def needed(world):
    """How many entries of the image cache are needed, and how many are not."""
    counts = Counter(usage.needed for usage in world.image_cache.store.usage())
    return counts[True], counts[False]


def per_concept(world):
    return {name: entries for name, entries, _ in world.image_cache.store.concepts()}


def test_all_that_a_start_needs_is_noted_by_concept(make):
    world = make("cats", "dogs")
    world.epoch()
    assert needed(world) == (5, 0)
    assert per_concept(world) == {"cats": 3, "dogs": 2}
    assert {name: entries for name, entries, _ in world.text_cache.store.concepts()} == {"cats": 3, "dogs": 2}


def test_a_concept_without_a_name_goes_by_its_folder(make):
    world = make("cats", concept={"name": ""})
    world.pipeline.start_next_epoch()
    assert per_concept(world) == {"cats": 3}


def test_another_set_of_settings_takes_the_place_of_the_one_before(make):
    make("cats").epoch()
    world = make("cats", settings={"target_resolution": 128})
    world.epoch()
    assert needed(world) == (3, 3)
    back = make("cats")
    back.epoch()
    assert back.encoded()[0] == [], "what is not needed is still there"
    assert needed(back) == (3, 3)


def test_trainings_of_different_concepts_do_not_take_each_others_place(make):
    make("cats").epoch()
    world = make("dogs", settings={"target_resolution": 128})
    world.epoch()
    assert needed(world) == (5, 0)
    assert per_concept(world) == {"cats": 3, "dogs": 2}


def test_what_is_no_longer_there_is_no_longer_needed(make, tmp_path):
    make("cats").epoch()
    (tmp_path / "cats" / "clip2.num").unlink()
    world = make("cats")
    world.epoch()
    assert needed(world) == (2, 1)


def test_variations_of_later_epochs_come_to_those_of_the_first(make):
    world = make("cats", concept={"image_variations": 3})
    for epoch in range(4):
        world.epoch()
        assert needed(world) == (3 * min(epoch + 1, 3), 0)


def test_an_interrupted_caching_has_said_what_it_is_for(make):
    def fault(number, variation):
        return KeyboardInterrupt() if number == 3 else None

    with pytest.raises(KeyboardInterrupt):
        make("cats", image_fault=fault, threads=1).epoch()
    made, foreign = needed(make("cats"))
    assert made > 0 and foreign == 0


def test_a_process_that_fills_no_cache_notes_nothing(make, tmp_path):
    make("cats").epoch()
    (tmp_path / "cats" / "clip2.num").unlink()
    follower = make("cats", fills_cache=False)
    assert trained(follower.epoch()) == Counter([1, 3])
    assert needed(follower) == (3, 0)
