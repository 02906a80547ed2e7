"""Both batch sortings: MGDS's order where batches are full, nothing lost in silence where they are not."""

from __future__ import annotations

import importlib
from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wan_fixes.errors import CriticalError, SampleError, UserError
from wan_fixes.health import total
from wan_fixes.pipeline import SafeAspectBatchSorting, SafeInlineAspectBatchSorting
from wan_fixes.pipeline.base import ENGINE, MGDS, PipelineState, TrainDataLoader

from .toys import Collector, RandomAccess, build, concept_of, events_of, output

NAMES = ["x", "concept", "res"]
SORTING_INDEX = 2  # behind the collector and the source
BOTH = pytest.mark.parametrize("inline", [False, True])


def source(resolutions, fails=lambda variation, index, name: False):
    def make(module, variation, index, name):
        if fails(variation, index, name):
            raise SampleError("broken", path=f"{index}", reason="broken", module="source")
        return {name: resolutions[index] if name == "res" else index}

    return RandomAccess(make, ("res", "x"), "image_path")


def modules(resolutions, batch_size, context, *, inline=False, fails=None, names=NAMES):
    kind = SafeInlineAspectBatchSorting if inline else SafeAspectBatchSorting
    return [
        Collector([concept_of(name="one") for _ in range(1)] * len(resolutions)),
        source(resolutions, fails or (lambda variation, index, name: False)),
        kind("res", list(names), batch_size, context=context),
    ]


def make_pipeline(resolutions, batch_size, context, **options):
    placing = {name: options.pop(name) for name in ("seed", "epoch", "sample") if name in options}
    shown = [
        ("concept.loss_weight", "loss_weight") if name == "concept" else name for name in options.get("names", NAMES)
    ]
    parts = [*modules(resolutions, batch_size, context, **options), output(*shown)]
    return build(*parts, batch_size=batch_size, **placing)


def epoch_of(pipeline):
    """(index, weight) of each sample of the next epoch."""
    pipeline.start_next_epoch()
    return [(int(sample["x"]), float(sample.get("loss_weight", 1.0))) for sample in pipeline]


def numbers(samples):
    return [index for index, _ in samples]


# The order is MGDS's


def stock_order(resolutions, batch_size, seed, epoch):
    """What MGDS's AspectBatchSorting gives, computed from its description."""
    rand = Random(hash((seed, SORTING_INDEX, epoch, -1)))
    buckets = {}
    for index, resolution in enumerate(resolutions):
        buckets.setdefault(resolution, []).append(index)
    batches = [(key, number) for key, bucket in buckets.items() for number in range(len(bucket) // batch_size)]
    rand.shuffle(batches)
    for bucket in buckets.values():
        rand.shuffle(bucket)
    return [index for key, number in batches for index in buckets[key][number * batch_size :][:batch_size]]


def stock_inline_order(resolutions, batch_size, seed, epoch):
    """What MGDS's InlineAspectBatchSorting gives."""
    order = list(range(len(resolutions)))
    Random(hash((seed, SORTING_INDEX, epoch, -1))).shuffle(order)
    buckets, given_out = {}, []
    for index in order:
        bucket = buckets.setdefault(resolutions[index], [])
        bucket.append(index)
        if len(bucket) == batch_size:
            given_out += bucket
            bucket.clear()
    return given_out


RESOLUTIONS = st.lists(st.sampled_from([(1, 64), (1, 96), (5, 64)]), min_size=1, max_size=14)
SEED = st.integers(-(2**31), 2**31)


@settings(max_examples=200, deadline=None)
@given(resolutions=RESOLUTIONS, batch_size=st.integers(1, 4), seed=SEED, epoch=st.integers(0, 3), inline=st.booleans())
def test_full_batches_come_in_the_order_of_mgds(contexts, resolutions, batch_size, seed, epoch, inline):
    full = [resolution for resolution in resolutions for _ in range(batch_size)]
    pipeline = make_pipeline(full, batch_size, contexts.new(), inline=inline, seed=seed, epoch=epoch)
    expected = (stock_inline_order if inline else stock_order)(full, batch_size, seed, epoch)
    assert epoch_of(pipeline) == [(index, 1.0) for index in expected]


@settings(max_examples=100, deadline=None)
@given(resolutions=RESOLUTIONS, batch_size=st.integers(1, 4), seed=SEED, inline=st.booleans())
def test_when_incomplete_batches_are_dropped_the_order_is_that_of_mgds_too(
    contexts, resolutions, batch_size, seed, inline
):
    expected = (stock_inline_order if inline else stock_order)(resolutions, batch_size, seed, 0)
    assume(expected)
    context = contexts.new(incomplete_batches="drop")
    assert numbers(epoch_of(make_pipeline(resolutions, batch_size, context, inline=inline, seed=seed))) == expected
    dropped = len(resolutions) - len(expected)
    assert [event.facts["dropped"] for event in events_of(context, "samples_dropped")] == [dropped] * bool(dropped)


@pytest.mark.skipif(ENGINE != "mgds", reason="the stock classes come with mgds, which is not importable here")
@BOTH
def test_the_golden_orders_are_those_of_the_stock_classes(inline):
    name = "InlineAspectBatchSorting" if inline else "AspectBatchSorting"
    stock = getattr(importlib.import_module(f"mgds.pipelineModules.{name}"), name)
    golden = stock_inline_order if inline else stock_order
    rand = Random(0)
    for _ in range(50):
        resolutions = [rand.choice([(1, 64), (1, 96), (5, 64)]) for _ in range(rand.randrange(1, 20))]
        batch_size, seed = rand.randrange(1, 5), rand.randrange(1000)
        parts = [Collector([concept_of()] * len(resolutions)), source(resolutions), stock("res", NAMES, batch_size)]
        pipeline = build(*parts, output("x"), seed=seed)
        for epoch in range(2):
            pipeline.start_next_epoch()
            assert [int(sample["x"]) for sample in pipeline] == golden(resolutions, batch_size, seed, epoch)


# What does not fill a batch


@settings(max_examples=200, deadline=None)
@given(resolutions=RESOLUTIONS, batch_size=st.integers(1, 5), seed=SEED, inline=st.booleans())
def test_every_sample_is_trained_once_and_every_batch_is_of_one_size(contexts, resolutions, batch_size, seed, inline):
    context = contexts.new()
    samples = epoch_of(make_pipeline(resolutions, batch_size, context, inline=inline, seed=seed))
    assert sorted(index for index, weight in samples if weight) == list(range(len(resolutions)))
    batches = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    for batch in batches:
        assert len(batch) == batch_size
        assert len({resolutions[index] for index, _ in batch}) == 1
        assert any(weight for _, weight in batch), "a batch of placeholders alone"
    wanted = sum(-(-count // batch_size) for count in Counter(resolutions).values())
    assert len(batches) == wanted
    placeholders = len(samples) - len(resolutions)
    assert total(context.metrics.snapshot(), "placeholders") == placeholders
    assert [event.facts["placeholders"] for event in events_of(context, "incomplete_batches")] == (
        [placeholders] * bool(placeholders)
    )


@BOTH
@pytest.mark.parametrize("names", [["x", "concept"], ["x", "weight", "loss_weight"]])
def test_placeholders_carry_no_weight_by_the_concept_or_by_themselves(context, inline, names):
    concept = concept_of(loss_weight=0.7)
    make = lambda module, variation, index, name: {"res": 1, "x": index, "weight": 2.0, "loss_weight": 0.7}  # noqa: E731
    kind = SafeInlineAspectBatchSorting if inline else SafeAspectBatchSorting
    pipeline = build(
        Collector([concept] * 3),
        RandomAccess(make, ("res", "x", "weight", "loss_weight"), "image_path"),
        kind("res", names, 4, context=context),
        output("x", ("concept.loss_weight", "loss_weight") if "concept" in names else "loss_weight"),
        batch_size=4,
    )
    weights = sorted(round(weight, 3) for _, weight in epoch_of(pipeline))
    assert weights == [0.0, 0.7, 0.7, 0.7]
    assert concept["loss_weight"] == 0.7


@BOTH
def test_what_cannot_carry_a_weight_is_dropped_and_reported(context, inline):
    names = ["x", "res"]
    samples = epoch_of(make_pipeline([1] * 5, 2, context, inline=inline, names=names))
    assert len(samples) == 4
    assert [event.facts for event in events_of(context, "samples_dropped")] == [{"dropped": 1}]
    assert total(context.metrics.snapshot(), "samples_dropped") == 1


@BOTH
def test_fewer_samples_than_a_batch_are_an_epoch_where_they_may_be_filled_up_and_an_error_where_not(contexts, inline):
    """With stock modules this is an epoch of no steps, without a word."""
    assert len(epoch_of(make_pipeline([1] * 5, 8, contexts.new(), inline=inline))) == 8
    with pytest.raises(UserError, match="5 samples do not fill a batch of 8"):
        epoch_of(make_pipeline([1] * 5, 8, contexts.new(incomplete_batches="drop"), inline=inline))


@BOTH
def test_no_samples_at_all_are_an_epoch_without_batches(context, inline):
    assert epoch_of(make_pipeline([], 2, context, inline=inline)) == []


@BOTH
def test_epochs_differ_and_a_resumed_run_draws_the_same_ones(context, contexts, inline):
    resolutions = [1, 2] * 6
    pipeline = make_pipeline(resolutions, 2, context, inline=inline)
    epochs = [epoch_of(pipeline) for _ in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    resumed = make_pipeline(resolutions, 2, contexts.new(), inline=inline, epoch=2)
    assert [epoch_of(resumed) for _ in range(2)] == epochs[2:]


@settings(max_examples=200, deadline=None)
@given(
    resolutions=RESOLUTIONS,
    batch_size=st.integers(1, 4),
    seed=SEED,
    inline=st.booleans(),
    mode=st.sampled_from(["pad", "drop"]),
    unreadable=st.sets(st.integers(0, 13), max_size=4),
    data=st.data(),
)
def test_resuming_anywhere_gives_what_the_uninterrupted_run_would_have_given(
    contexts, resolutions, batch_size, seed, inline, mode, unreadable, data
):
    """Samples whose size cannot even be read are passed over in both runs alike."""

    def run(start):
        pipeline = make_pipeline(
            resolutions,
            batch_size,
            contexts.new(incomplete_batches=mode),
            inline=inline,
            seed=seed,
            sample=start,
            fails=lambda variation, index, name: index in unreadable,
        )
        return epoch_of(pipeline)

    try:
        whole = run(0)
    except UserError:
        assume(False)
    start = data.draw(st.integers(0, len(whole)))
    assert run(start) == whole[start - start % batch_size :]


def test_replaying_loads_nothing_but_sizes(context):
    asked = []

    def fails(variation, index, name):
        asked.append((index, name))
        return False

    pipeline = make_pipeline([1] * 12, 2, context, inline=True, fails=fails, sample=8)
    pipeline.start_next_epoch()
    first = int(next(pipeline)["x"])
    loaded = {index for index, name in asked if name == "x"}
    assert first in loaded
    assert len(loaded) == 2, "only the first batch after the place where training goes on"


# Samples that fail


def failing(*bad):
    """The size is known (from the cache, say), but the sample cannot be read."""
    return lambda variation, index, name: index in bad and name != "res"


def test_a_sample_that_fails_in_a_batch_is_replaced_by_a_sibling_without_weight(context):
    resolutions = [1, 1, 2, 2, 1, 1]
    samples = epoch_of(make_pipeline(resolutions, 2, context, fails=failing(2, 4)))
    assert sorted(index for index, weight in samples if weight) == [0, 1, 3, 5]
    batches = [samples[start : start + 2] for start in range(0, 6, 2)]
    assert all(len({resolutions[index] for index, _ in batch}) == 1 for batch in batches)
    assert sorted((3, 1.0) in batch and (3, 0.0) in batch for batch in batches) == [False, False, True]
    assert total(context.metrics.snapshot(), "placeholders") == 2


def test_where_the_whole_bucket_fails_another_one_fills_the_batch_with_one_size(context):
    resolutions = [1, 1, 2, 2, 2]
    samples = epoch_of(make_pipeline(resolutions, 2, context, fails=failing(0, 1)))
    assert sorted(index for index, weight in samples if weight) == [2, 3, 4]
    batches = [samples[start : start + 2] for start in range(0, 6, 2)]
    assert all(len({resolutions[index] for index, _ in batch}) == 1 for batch in batches)


def test_where_nothing_can_be_read_any_more_the_run_ends(context):
    with pytest.raises(CriticalError, match="no sample can be read any more"):
        epoch_of(make_pipeline([1, 2], 1, context, fails=failing(0, 1)))


def test_where_nothing_can_stand_in_the_run_ends_and_names_the_file(context):
    with pytest.raises(CriticalError, match="nothing can stand in for it") as caught:
        epoch_of(make_pipeline([1] * 4, 2, context, fails=failing(3), names=["x", "res"]))
    assert caught.value.path == "3"
    assert caught.value.__cause__ is not None


@BOTH
def test_samples_whose_size_cannot_be_read_are_left_out(context, inline):
    fails = lambda variation, index, name: index in (1, 4)  # noqa: E731
    samples = epoch_of(make_pipeline([1] * 6, 2, context, inline=inline, fails=fails))
    assert sorted(samples) == [(0, 1.0), (2, 1.0), (3, 1.0), (5, 1.0)]


@settings(max_examples=150, deadline=None)
@given(
    resolutions=RESOLUTIONS,
    batch_size=st.integers(1, 4),
    seed=SEED,
    bad=st.sets(st.integers(0, 13), max_size=6),
    late=st.booleans(),
)
def test_without_a_cache_failed_samples_are_passed_over_and_all_others_trained(
    contexts, resolutions, batch_size, seed, bad, late
):
    """They fail when their size is read, or only when all of them is."""
    good = set(range(len(resolutions))) - bad
    assume(good)
    fails = failing(*bad) if late else lambda variation, index, name: index in bad
    samples = epoch_of(make_pipeline(resolutions, batch_size, contexts.new(), inline=True, seed=seed, fails=fails))
    assert sorted(index for index, weight in samples if weight) == sorted(good)
    assert not set(numbers(samples)) & bad
    batches = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    assert all(len(batch) == batch_size for batch in batches)
    assert all(len({resolutions[index] for index, _ in batch}) == 1 for batch in batches)


# Through the whole engine, as a trainer reads it


@BOTH
@pytest.mark.parametrize("count", [3, 4, 7, 9])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_padded_end_comes_through_the_data_loader(contexts, inline, count, batch_size):
    resolutions = [(1, 64), (1, 96), (5, 64)] * 3
    resolutions = resolutions[:count]
    context = contexts.new()
    shown = ["x", ("concept.loss_weight", "loss_weight")]
    data = MGDS(
        torch.device("cpu"),
        [concept_of()],
        {},
        [modules(resolutions, batch_size, context, inline=inline), output(*shown)],
        batch_size=batch_size,
        state=PipelineState(1),
    )
    loader = TrainDataLoader(data, batch_size=batch_size)
    wanted = sum(-(-number // batch_size) for number in Counter(resolutions).values())
    for _ in range(3):
        data.start_next_epoch()
        batches = list(loader)
        assert len(batches) == wanted
        trained = [
            index
            for batch in batches
            for index, weight in zip(batch["x"].tolist(), batch["loss_weight"], strict=True)
            if weight
        ]
        assert sorted(trained) == list(range(count))
        assert all(batch["x"].shape == (batch_size,) for batch in batches)


@BOTH
def test_the_length_said_beforehand_is_right_where_batches_are_full(context, inline):
    pipeline = make_pipeline([1] * 8, 2, context, inline=inline)
    pipeline.start_next_epoch()
    assert pipeline.approximate_length() == 8


def test_the_length_said_beforehand_counts_placeholders_once_they_are_known(context):
    pipeline = make_pipeline([1, 1, 2], 2, context)
    pipeline.start_next_epoch()
    assert pipeline.approximate_length() == 4
