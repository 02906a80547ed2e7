"""The correctness properties of the seed document that concern the pipeline, over random pipelines and faults."""

from __future__ import annotations

import errno
import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import CriticalError, SampleError, UserError
from wan_fixes.pipeline import (
    DataFlowValidator,
    EnhancedSafePipelineModule,
    SafeAspectBatchSorting,
    SafeInlineAspectBatchSorting,
    SafeVariationSorting,
    ValidatedDiskCache,
    rewrite_definition,
)
from wan_fixes.pipeline.checks import problem_with
from wan_fixes.pipeline.validator import ItemSpec

from .toys import Collector, RandomAccess, SingleVariation, build, concept_of, output, samples_of, started
from .world import LoadNumber, concept_over, make_pipeline, number_in, write_sample

_numbers = itertools.count(0, 100)  # each example has files of its own: a failure must not be hidden by a cached entry
PATIENT = {"breaker_min_calls": 10_000, "max_consecutive_failures": 10_000}  # no verdict on a module from a few samples

# What may go wrong where a value is made: how it is done, and the words that must turn up in the records.


def _raise(error):
    raise error


BAD = {
    "value error": (lambda value: _raise(ValueError("no such colour")), "ValueError: no such colour"),
    "missing key": (lambda value: _raise(KeyError("frames")), "KeyError: 'frames'"),
    "missing file": (lambda value: _raise(FileNotFoundError(errno.ENOENT, "gone")), "FileNotFoundError"),
    "always busy": (lambda value: _raise(OSError(errno.EBUSY, "busy")), "busy"),
    "sample error": (lambda value: _raise(SampleError("broken", reason="torn in two")), "torn in two"),
    "none": (lambda value: None, "is None"),
    "nan": (lambda value: value * float("nan"), "1 of 1 values that are NaN or infinite"),
    "infinite": (lambda value: value + float("inf"), "1 of 1 values"),
    "empty": (lambda value: value[:0], "is empty"),
    "wrong type": (lambda value: "a text", "is str, expected Tensor"),
    "not a dict": (None, "expected a dict"),
}
TRANSIENT = "busy for a moment"
STEP = 1_000_000  # more than there are numbers, so that a value tells its sample and how many stages it has passed


@dataclass(frozen=True)
class Plan:
    """A chain of modules over some samples; `faults` says which module fails for which sample, and how."""

    samples: int
    stages: int
    faults: dict[tuple[int, int], str] = field(default_factory=dict)
    caching: bool = True
    batch_size: int = 1
    threads: int = 1
    epochs: int = 1

    def bad(self):
        """Sample -> stage and fault of the first module that fails for good."""
        found = {}
        for (stage, sample), fault in sorted(self.faults.items()):
            if fault != TRANSIENT and sample < self.samples and stage < self.stages:
                found.setdefault(sample, (stage, fault))
        return found


PLANS = st.builds(
    Plan,
    samples=st.integers(1, 7),
    stages=st.integers(1, 4),
    faults=st.dictionaries(
        st.tuples(st.integers(0, 3), st.integers(0, 6)), st.sampled_from([*BAD, TRANSIENT]), max_size=6
    ),
    caching=st.booleans(),
    batch_size=st.integers(1, 3),
    threads=st.sampled_from([1, 4]),
    epochs=st.integers(1, 2),
)


def stage(number, plan, base):
    """Adds STEP to `v{number}`, or fails as planned."""
    hiccups = Counter()

    def make(module, variation, index, name):
        value = module._get_previous_item(variation, f"v{number}", index)
        sample = int(value) % STEP - base - 1
        fault = plan.faults.get((number, sample))
        if fault == TRANSIENT:
            hiccups[sample] += 1
            if hiccups[sample] <= 3:
                raise OSError(errno.EBUSY, "busy")
        elif fault == "not a dict":
            return [value]
        elif fault is not None:
            return {name: BAD[fault][0](value)}
        return {name: value + STEP}

    return RandomAccess(make, (f"v{number + 1}",), f"v{number}")


class LoadVector(LoadNumber):
    def get_item(self, variation, index, requested_name=None):
        [value] = super().get_item(variation, index, requested_name).values()
        return {self.out_name: value.double().reshape(1)}


def definition(plan, base, context, cache_dir):
    last = f"v{plan.stages}"
    stages = [stage(number, plan, base) for number in range(plan.stages)]
    collector_of_paths = PathCollector(cache_dir.parent / f"property{base}", plan.samples, base)
    cache = ValidatedDiskCache(str(cache_dir), [last], ["image_path"], context=context)
    names = ["concept"] if plan.caching else ["concept", "image_path", last]
    sorting = SafeVariationSorting(names, context=context)
    batches = SafeAspectBatchSorting if plan.caching else SafeInlineAspectBatchSorting
    parts = [
        collector_of_paths,
        LoadVector("image_path", "v0"),
        stages,
        [cache] if plan.caching else [],
        sorting,
        batches("image_path_size", ["concept", "image_path", last], plan.batch_size, context=context),
        output("image_path", (last, "value"), ("concept.loss_weight", "loss_weight")),
    ]
    size = RandomAccess(lambda module, variation, index, name: {name: (1, 64)}, ("image_path_size",), "concept")
    parts.insert(5, size)
    rewrite_definition(parts, context)
    for module in stages:
        assert isinstance(module, EnhancedSafePipelineModule)
        module.expected_types[module.get_outputs()[0]] = torch.Tensor
    return parts


class PathCollector(Collector):
    def __init__(self, folder, count, base):
        paths = [str(write_sample(folder, base + 1 + sample)) for sample in range(count)]
        super().__init__([concept_over(folder)] * count, paths)


@settings(max_examples=times(80, 200), deadline=None)
@given(plan=PLANS)
def test_property_1_every_good_sample_is_trained_and_every_bad_one_is_named(contexts, plan):
    """Feature: wan-training-pipeline-fixes, Property 1: Pipeline Error Recovery

    For any pipeline module and any error condition, when an error occurs during data processing, the system should
    log the error with detailed context, attempt recovery or skip the problematic sample, and continue processing
    remaining samples without crashing.
    """
    base = next(_numbers)
    context = contexts.with_shared_caches(**PATIENT)
    bad = plan.bad()
    parts = definition(plan, base, context, contexts.folder / "cache")
    pipeline = make_pipeline([], parts, {}, batch_size=plan.batch_size, threads=plan.threads)
    good = [sample for sample in range(plan.samples) if sample not in bad]
    try:
        for _ in range(plan.epochs):
            pipeline.start_next_epoch()
            samples = list(pipeline)
            weighty = [sample for sample in samples if sample["loss_weight"] > 0]
            assert sorted(number_in(sample["image_path"]) - base - 1 for sample in weighty) == good
            for sample in samples:
                assert float(sample["value"]) == number_in(sample["image_path"]) + STEP * plan.stages
            assert len(samples) % plan.batch_size == 0
    except UserError:
        assert not good, "it gave up although there was something to train on"
    assert set(context.roster.reasons()) == set(bad)
    records = samples_of(context)
    assert len(records) == len(bad)
    for path, record in records.items():
        number, fault = bad[number_in(path) - base - 1]
        assert BAD[fault][1] in record.reason
        assert record.fix or fault == "sample error"
        if fault != "sample error":
            assert f"'v{number + 1}'" in record.reason, "the item is named"
            assert record.module == "RandomAccess"


# Property 2

STRANGE = (
    st.none()
    | st.just(float("nan"))
    | st.integers()
    | st.text(max_size=3)
    | st.lists(st.none(), max_size=2)
    | st.just(torch.zeros(2, 0))
    | st.just(torch.tensor([float("nan"), 1.0]))
    | st.just(torch.tensor([-float("inf")]))
    | st.just([torch.tensor(float("nan"))])
    | st.just({"a": torch.tensor(float("inf"))})
)
SOUND = {str: "text", int: 3, tuple: (1, 64, 64), torch.Tensor: torch.ones(3), dict: {"a": None}}


@settings(max_examples=times(100, 300), deadline=None)
@given(
    kinds=st.lists(st.sampled_from(list(SOUND)), min_size=1, max_size=4),
    strange=st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 4)), STRANGE, max_size=8),
    strategy=st.sampled_from(["skip", "fallback"]),
)
def test_property_2_nothing_none_misshapen_or_not_finite_reaches_a_stage(contexts, kinds, strange, strategy):
    """Feature: wan-training-pipeline-fixes, Property 2: Data Validation Integrity

    For any pipeline stage and any data item, the system should validate data integrity (including None checking and
    type validation) before processing and prevent None values from propagating to subsequent stages.
    """
    context = contexts.new(**PATIENT)
    received = []

    def make_stage(number, kind):
        def make(module, variation, index, name):
            if number:
                received.append((number, module._get_previous_item(variation, f"v{number}", index)))
            return {name: strange.get((number, index), SOUND[kind])}

        return EnhancedSafePipelineModule(
            RandomAccess(make, (f"v{number + 1}",), f"v{number}" if number else "image_path"),
            f"stage{number}",
            strategy,
            max_failures=10_000,
            context=context,
            expected_types={f"v{number + 1}": kind},
        )

    stages = [make_stage(number, kind) for number, kind in enumerate(kinds)]
    reader = started(Collector([concept_of()] * 5), *stages)
    for index in range(5):
        faults = [number for number in range(len(kinds)) if is_unfit(strange, number, index, kinds[number])]
        try:
            received.append((len(kinds), reader.read(f"v{len(kinds)}", index)))
        except SampleError as error:
            assert faults, "a good sample was skipped"
            assert error.module == f"stage{faults[0]}" or strategy == "fallback"
        else:
            assert not faults or strategy == "fallback"
    for number, value in received:
        assert isinstance(value, kinds[number - 1])
        assert problem_with(value) is None


def is_unfit(strange, number, index, kind):
    if (number, index) not in strange:
        return False
    value = strange[number, index]
    return not isinstance(value, kind) or problem_with(value) is not None


@settings(max_examples=times(80, 200), deadline=None)
@given(
    schema=st.dictionaries(st.sampled_from("abcd"), st.sampled_from(list(SOUND)), min_size=1),
    changes=st.dictionaries(st.sampled_from("abcd"), STRANGE, max_size=2),
    missing=st.sets(st.sampled_from("abcd"), max_size=1),
)
def test_property_2_an_item_is_valid_exactly_when_each_part_is_as_it_must_be(schema, changes, missing):
    """Feature: wan-training-pipeline-fixes, Property 2: Data Validation Integrity"""
    item = {name: SOUND[kind] for name, kind in schema.items()} | changes
    item = {name: value for name, value in item.items() if name not in missing}
    unfit = [
        name
        for name, kind in schema.items()
        if name not in item or not isinstance(item[name], kind) or problem_with(item[name]) is not None
    ]
    validator = DataFlowValidator()
    assert validator.validate_pipeline_item(item, schema) == (not unfit)
    problems = validator.explain(item, {name: ItemSpec(kind) for name, kind in schema.items()})
    assert [problem.split("'")[1] for problem in problems] == unfit


# Property 8: the cache reads whatever lies before it without being hurt.

REQUESTS = [
    "x",
    "nested.a",
    "nested.a.b",
    "nested.missing",
    "nested.a.missing",
    "unknown",
    "concept.loss_weight",
    "concept.no.such",
]
ERRORS = [ValueError("bad"), KeyError("x"), TypeError("odd"), IndexError(7), AttributeError("y")]


@settings(max_examples=times(100, 300), deadline=None)
@given(
    value=STRANGE,
    error=st.none() | st.sampled_from(ERRORS),
    name=st.sampled_from(REQUESTS),
    index=st.integers(0, 6),
    variation=st.integers(0, 2),
    bare=st.booleans(),
)
def test_property_8_any_access_gives_a_value_or_a_sample_error_that_keeps_its_cause(
    contexts, value, error, name, index, variation, bare
):
    """Feature: wan-training-pipeline-fixes, Property 8: Safe Data Access Patterns

    For any data access operation, the system should use safe dictionary access patterns with default values,
    implement proper type checking, and preserve exception context for debugging.
    """
    context = contexts.with_shared_caches(**PATIENT)

    def make(module, variation, index, name):
        if error is not None:
            raise error
        return {} if bare else {"x": value, "nested": {"a": value}}

    modules = [Collector([concept_of()] * 5), RandomAccess(make, ("x", "nested"), "image_path")]
    cache = ValidatedDiskCache(str(contexts.folder / "cache"), ["x"], context=context)
    build(*modules, cache)
    try:
        got = cache.safe_get_previous_item(variation, name, index)
    except SampleError as problem:
        assert f"'{name}'" in problem.reason
        assert problem.path == (f"clip{index}.mp4" if index < 5 else None)
        assert problem.module == "ValidatedDiskCache"
        if error is not None and name.split(".")[0] in ("x", "nested") and index < 5:
            assert problem.__cause__ is error
        elif problem.__cause__ is None:
            assert "made no" in problem.reason
    else:
        assert got is not None
        assert error is None or name.startswith("concept")


def test_property_8_an_item_of_another_epoch_is_refused(contexts):
    """Feature: wan-training-pipeline-fixes, Property 8: Safe Data Access Patterns"""
    context = contexts.with_shared_caches(**PATIENT)
    current = SingleVariation(lambda module, index, name: {"x": module.current_variation}, ("x",), "image_path")
    cache = ValidatedDiskCache(str(contexts.folder / "cache"), ["x"], context=context)
    build(Collector([concept_of()]), current, cache)
    current.current_variation = 3
    assert cache.safe_get_previous_item(3, "x", 0) == 3
    with pytest.raises((SampleError, CriticalError), match="wrong variation requested"):
        cache.safe_get_previous_item(2, "x", 0)


@settings(max_examples=100, deadline=None)
@given(item=st.dictionaries(st.sampled_from(["x", "y", "z"]), STRANGE, max_size=3))
def test_property_8_only_whole_and_finite_items_are_valid_for_the_cache(contexts, item):
    """Feature: wan-training-pipeline-fixes, Property 8: Safe Data Access Patterns"""
    cache = ValidatedDiskCache(
        str(contexts.folder / "cache"), ["x"], ["y"], context=contexts.with_shared_caches(**PATIENT)
    )
    build(RandomAccess(lambda *_: {"x": 1, "y": 2}, ("x", "y"), "concept"), cache)
    whole = all(name in item and problem_with(item[name]) is None for name in ("x", "y"))
    assert cache.validate_cache_item(item) == whole
