"""However samples fail, vary, repeat and are switched off: every caption meets its clip, and the epoch is MGDS's."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from effort import times
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wan_fixes.errors import SampleError

from .toys import samples_of
from .world import NAN, World, concept_over, number_of, trained, write_sample

# Numbers of its own for each example: what failed in one must not be cached by another. All of an example have as many
# digits, so that the order of their names is theirs.
_numbers = itertools.count(100, 100)

FAULTS = {
    "error": lambda: SampleError("broken", module="encoder"),
    "foreign": lambda: RuntimeError("broken"),
    "none": lambda: "none",
    "nan": lambda: NAN,
}


@dataclass(frozen=True)
class Plan:
    """Concepts and the failures among their samples. Concepts may share a folder and differ in a setting only."""

    concepts: tuple[dict, ...]
    files: tuple[int, ...]
    """How many files each folder has."""
    image_faults: dict[int, str] = field(default_factory=dict)
    """Sample (counted over all folders) -> kind of failure."""
    text_faults: dict[int, str] = field(default_factory=dict)
    missing_captions: frozenset[int] = frozenset()
    batch_size: int = 1
    buckets: int = 1
    threads: int = 1
    guards: bool = True
    """Whether the definition was rewritten. Caches do without: they take each failure for their sample's."""


@st.composite
def plans(draw):
    files = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    concepts = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "folder": st.integers(0, len(files) - 1),
                    "enabled": st.booleans() | st.just(True),
                    "balancing": st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.5, 3.0]),
                    "balancing_strategy": st.sampled_from(["REPEATS", "SAMPLES"]),
                    "image_variations": st.integers(1, 3),
                    "text_variations": st.integers(1, 3),
                    "image": st.sampled_from([{}, {"a": 1}]),
                    "text": st.sampled_from([{}, {"a": 1}]),
                }
            ),
            min_size=1,
            max_size=4,
        )
    )
    some = st.dictionaries(st.integers(0, max(0, sum(files) - 1)), st.sampled_from(sorted(FAULTS)), max_size=4)
    return Plan(
        concepts=tuple(concepts),
        files=files,
        image_faults=draw(some),
        text_faults=draw(some),
        missing_captions=draw(st.frozensets(st.integers(0, max(0, sum(files) - 1)), max_size=2)),
        batch_size=draw(st.integers(1, 3)),
        buckets=draw(st.integers(1, 2)),
        threads=draw(st.sampled_from([1, 3])),
        guards=draw(st.booleans()),
    )


def run(contexts, plan, epochs, **options):
    """What each epoch of the plan trains: (sample, variation of its latent, variation of its hidden state)."""
    base = next(_numbers)
    root = contexts.folder / f"example{base}"
    numbers = iter(range(base + 1, base + 1 + sum(plan.files)))
    folders = [root / f"folder{place}" for place in range(len(plan.files))]
    for folder, count in zip(folders, plan.files, strict=True):
        folder.mkdir(parents=True)
        for _ in range(count):
            number = next(numbers)
            path = write_sample(folder, number)
            if number - base - 1 in plan.missing_captions:
                path.with_suffix(".txt").unlink()
    concepts = [
        concept_over(folders[concept["folder"]], **{name: concept[name] for name in concept if name != "folder"})
        for concept in plan.concepts
    ]

    def fault_of(faults):
        return lambda number, variation: FAULTS[faults[number - base - 1]]() if number - base - 1 in faults else None

    # So few samples say nothing about a module, however many of them fail.
    context = contexts.with_shared_caches(
        missing_captions="skip", breaker_min_calls=1000, max_consecutive_failures=1000
    )
    world = World(
        context,
        contexts.folder / "cache",
        concepts,
        image_fault=fault_of(plan.image_faults),
        text_fault=fault_of(plan.text_faults),
        batch_size=plan.batch_size,
        buckets=plan.buckets,
        threads=plan.threads,
        guards=plan.guards,
        settings={"target_resolution": "64"},
        **options,
    )
    seen = []
    for _ in range(epochs):
        samples = world.epoch()
        assert len(samples) % plan.batch_size == 0
        trained(samples)  # checks that all parts of each sample, placeholders too, belong together
        seen.append(
            Counter(
                (number_of(sample) - base - 1, int(sample["latent_image"][1]), int(sample["hidden"][1]))
                for sample in samples
                if sample["loss_weight"] > 0
            )
        )
    return seen, context, base


def expected(plan, kinds=("image", "text")):
    """The samples of each epoch by MGDS's rules: plain lists, no modules. Endless.

    Concepts over one folder are one group unless they differ in their settings of one of the `kinds`.
    """
    first = list(itertools.accumulate(plan.files, initial=0))
    groups = {}
    for concept in plan.concepts:
        if not concept["enabled"]:
            continue
        key = (concept["folder"], *(str(concept[kind]) for kind in kinds))
        members = groups.setdefault(key, (concept, []))[1]
        members += range(first[concept["folder"]], first[concept["folder"] + 1])
    bad = {*plan.image_faults, *plan.text_faults, *plan.missing_captions}
    for epoch in itertools.count():
        order = []
        for concept, members in groups.values():
            good = [member for member in members if member not in bad]
            if not good:
                continue
            repeats = concept["balancing_strategy"] == "REPEATS"
            count = math.floor(len(good) * concept["balancing"]) if repeats else int(concept["balancing"])
            for place in range(epoch * count, (epoch + 1) * count):
                turn = place // len(good)
                order.append(
                    (good[place % len(good)], turn % concept["image_variations"], turn % concept["text_variations"])
                )
        yield Counter(order)


@settings(max_examples=times(20, 150), deadline=None)
@given(plan=plans())
def test_every_epoch_has_exactly_the_samples_that_it_should_and_each_with_its_own_caption(contexts, plan):
    epochs = list(itertools.islice(expected(plan), 3))
    assume(all(epochs))  # an empty epoch is an error of its own
    seen, context, base = run(contexts, plan, 3)
    assert seen == epochs
    bad = {*plan.image_faults, *plan.text_faults, *plan.missing_captions}
    named = {int(path.rsplit("clip", 1)[-1].split(".")[0]) - base - 1 for path in samples_of(context)}
    assert named <= bad


@settings(max_examples=times(15, 100), deadline=None)
@given(plan=plans())
def test_without_caching_the_same_samples_are_trained_each_made_anew(contexts, plan):
    """Here a sample's failure is met in the middle of its first epoch; it is out for good from the second one on."""
    epochs = list(itertools.islice(expected(plan, kinds=("text",)), 3))
    assume(all(epochs))
    seen, _, _ = run(contexts, replace(plan, guards=True), 3, caching=False)
    bad = {*plan.image_faults, *plan.text_faults, *plan.missing_captions}
    for counts in seen:
        assert not {number for number, _, _ in counts} & bad
    if all(concept["balancing_strategy"] == "REPEATS" and concept["balancing"] >= 1 for concept in plan.concepts):
        # All failures are met in the first epoch.
        for counts, wanted in zip(seen[1:], epochs[1:], strict=True):
            assert Counter(number for number, _, _ in counts.elements()) == Counter(
                number for number, _, _ in wanted.elements()
            )


@settings(max_examples=times(15, 100), deadline=None)
@given(
    plan=plans(),
    bad_variations=st.dictionaries(
        st.tuples(st.sampled_from(["image", "text"]), st.integers(0, 5), st.integers(0, 2)),
        st.sampled_from(sorted(FAULTS)),
        max_size=5,
    ),
)
def test_samples_that_fail_in_one_variation_only_never_bring_the_others_out_of_step(contexts, plan, bad_variations):
    base = next(_numbers)
    folder = contexts.folder / f"example{base}" / "clips"
    for place in range(6):
        write_sample(folder, base + 1 + place)
    changes = {name: plan.concepts[0][name] for name in ("balancing", "image_variations", "text_variations")}
    concept = concept_over(folder, **changes)
    if concept["balancing"] == 0:
        concept["balancing"] = 2.0

    def fault(stage):
        def of(number, variation):
            kind = bad_variations.get((stage, number - base - 1, variation))
            return None if kind is None else FAULTS[kind]()

        return of

    world = World(
        contexts.with_shared_caches(),
        contexts.folder / "cache",
        [concept],
        image_fault=fault("image"),
        text_fault=fault("text"),
        batch_size=plan.batch_size,
        settings={"target_resolution": "64"},
    )
    good = {base + 1 + place for place in range(6)} - {base + 1 + place for _, place, _ in bad_variations}
    out = set()
    for _ in range(4):
        if not good:
            break
        counts = trained(world.epoch())
        assert not set(counts) & out, "who has failed does not come back"
        out = {base + 1 + place for place in range(6) if place in world.context.roster.reasons()}
        assert not out & good


def test_two_concepts_that_share_a_folder_and_differ_in_their_text_settings_stay_apart(contexts):
    """Stock caches put their images into one group and their texts into two: at half balancing captions are swapped."""
    plan = Plan(
        concepts=tuple(
            {
                "folder": 0,
                "enabled": True,
                "balancing": 0.5,
                "balancing_strategy": "REPEATS",
                "image_variations": 1,
                "text_variations": 1,
                "image": {},
                "text": {"a": number},
            }
            for number in range(2)
        ),
        files=(4,),
    )
    seen, _, _ = run(contexts, plan, 2)
    assert seen == [Counter({(0, 0, 0): 2, (1, 0, 0): 2}), Counter({(2, 0, 0): 2, (3, 0, 0): 2})]


@pytest.mark.parametrize("caching", [True, False])
def test_a_caption_that_is_missing_takes_its_clip_out_when_the_settings_say_so(contexts, caching):
    plan = Plan(
        concepts=(
            {
                "folder": 0,
                "enabled": True,
                "balancing": 1.0,
                "balancing_strategy": "REPEATS",
                "image_variations": 1,
                "text_variations": 1,
                "image": {},
                "text": {},
            },
        ),
        files=(4,),
        missing_captions=frozenset({1}),
    )
    seen, context, base = run(contexts, plan, 1, caching=caching)
    assert [sorted(number for number, _, _ in counts) for counts in seen] == [[0, 2, 3]]
    [(path, record)] = samples_of(context).items()
    assert path.endswith(f"clip{base + 2}.num")
    assert record.reason == f"clip{base + 2}.txt: there is no caption file"
