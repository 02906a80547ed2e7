"""EnhancedSafePipelineModule: nothing bad gets past it, and it says what it did."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from wan_fixes.errors import CriticalError, SampleError, UserError
from wan_fixes.health import total
from wan_fixes.pipeline import EnhancedSafePipelineModule, PipelineContext
from wan_fixes.pipeline.base import (
    PipelineModule,
    RandomAccessPipelineModule,
    SerialPipelineModule,
    SingleVariationRandomAccessPipelineModule,
)

from .toys import (
    Collector,
    RandomAccess,
    Serial,
    SingleVariation,
    build,
    concept_of,
    events_of,
    output,
    samples_of,
    started,
)

KINDS = {
    RandomAccess: RandomAccessPipelineModule,
    SingleVariation: SingleVariationRandomAccessPipelineModule,
    Serial: SerialPipelineModule,
}


def collector(count=6):
    return Collector([concept_of() for _ in range(count)])


def guarded(context, make, *, kind=RandomAccess, outputs=("x",), in_name="image_path", name="toy", **options):
    return EnhancedSafePipelineModule(kind(make, outputs, in_name), name, context=context, **options)


def giving(**items):
    return lambda module, *place: dict(items)


# What it is


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_of_the_kind_of_its_module_and_of_no_other(context, kind):
    guard = guarded(context, giving(x=1), kind=kind)
    assert isinstance(guard, EnhancedSafePipelineModule)
    assert isinstance(guard, PipelineModule)
    assert [base for base in KINDS.values() if isinstance(guard, base)] == [KINDS[kind]]


@pytest.mark.parametrize("kind", KINDS)
def test_items_pass_through_unchanged(context, kind):
    value = torch.arange(3.0)
    reader = started(collector(3), guarded(context, giving(x=value, y="text"), kind=kind, outputs=("x", "y")))
    assert reader.read("x", 0) is value
    assert reader.read("y", 0) == "text"


def test_its_module_gets_the_place_of_the_guard(context):
    guard = guarded(context, lambda module, variation, index, name: {"x": module._get_rand(variation, index).random()})
    bare = RandomAccess(guard.wrapped_module._make)
    assert started(collector(), guard).read("x", 2) == started(collector(), bare).read("x", 2)


def test_inputs_outputs_length_meta_and_attributes_are_those_of_the_module(context):
    module = RandomAccess(giving(x=1), ("x", "y"), "image_path")
    module.get_meta = lambda variation, name: ("meta", variation, name)
    guard = EnhancedSafePipelineModule(module, "toy", context=context)
    started(collector(4), guard)
    assert guard.get_inputs() == ["image_path"]
    assert guard.get_outputs() == ["x", "y"]
    assert guard.length() == 4
    assert guard.get_meta(2, "x") == ("meta", 2, "x")
    assert guard.in_name == "image_path"
    with pytest.raises(AttributeError):
        _ = guard.no_such_attribute


def test_start_reaches_the_module_with_its_variation(context):
    seen = []
    module = SingleVariation(giving(x=1))
    module.start = lambda variation: seen.append((variation, module.current_variation))
    build(collector(), guarded_module(module, context), epoch=3).start_next_epoch()
    assert seen == [(3, 3)]


def guarded_module(module, context, **options):
    return EnhancedSafePipelineModule(module, "toy", context=context, **options)


def test_what_no_pipeline_can_run_is_refused(context):
    with pytest.raises(TypeError, match="object is no kind of module"):
        EnhancedSafePipelineModule(object(), "toy", context=context)


def test_an_unknown_strategy_is_refused(context):
    with pytest.raises(ValueError, match="'ignore'"):
        guarded(context, giving(x=1), fallback_strategy="ignore")


def test_the_signature_of_the_seed_document_is_enough():
    guard = EnhancedSafePipelineModule(RandomAccess(giving(x=None)), "toy", "skip", 2)
    with pytest.raises(SampleError, match="'x' is None"):
        started(collector(), guard).read("x", 0)
    guard.context.close()


# What it finds

BAD = {
    "none": (None, "is None"),
    "nan": (torch.tensor([1.0, float("nan")]), "1 of 2 values that are NaN or infinite"),
    "infinite": (torch.tensor([float("inf"), 1.0, -float("inf")]), "2 of 3 values"),
    "empty": (torch.zeros(3, 0), r"is empty: shape \(3, 0\)"),
    "no data": (torch.zeros(2, device="meta"), "has no data"),
    "no number": (float("nan"), "is nan"),
    "a nan inside": ({"hidden": [torch.tensor([float("nan")])]}, "a part 'hidden' that has a part 0 that has 1 of 1"),
}


@pytest.mark.parametrize("kind", [RandomAccess, SingleVariation])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_value_is_named_with_module_item_and_sample(context, kind, bad):
    value, reason = BAD[bad]
    reader = started(collector(), guarded(context, giving(x=value), kind=kind))
    with pytest.raises(SampleError, match=reason) as caught:
        reader.read("x", 2)
    # Modules of one variation are caches and sortings: their index need not be that of the list of files.
    assert caught.value.path == ("clip2.mp4" if kind is RandomAccess else "sample 2")
    assert caught.value.module == "toy"
    assert caught.value.context == {"item": "x", "index": 2, "failed": True}
    assert "'x'" in caught.value.reason and caught.value.fix


def test_a_wrong_type_is_named_with_what_was_expected_and_what_came(context):
    guard = guarded(context, giving(x=torch.zeros(2, 3)), expected_types={"x": str})
    with pytest.raises(SampleError, match=r"'x' is float32 \[2, 3\], expected str"):
        started(collector(), guard).read("x", 0)


def test_an_item_that_is_no_dict_is_named(context):
    guard = guarded(context, lambda *_: [1, 2], fallback_strategy="fallback", expected_types={"x": str})
    assert started(collector(), guard).read("x", 0) == ""
    guard = guarded(context, lambda *_: None)
    with pytest.raises(SampleError, match="'x' is NoneType, expected a dict of items"):
        started(collector(), guard).read("x", 0)


def test_a_missing_item_counts_as_none(context):
    with pytest.raises(SampleError, match="'y' is None"):
        started(collector(), guarded(context, giving(x=1), outputs=("x", "y"))).read("y", 0)


def test_only_the_requested_item_is_looked_at(context):
    reader = started(collector(), guarded(context, giving(x=1, y=None), outputs=("x", "y")))
    assert reader.read("x", 0) == 1


def test_none_passes_where_an_earlier_module_makes_the_item(context):
    """Stock definitions load videos after images: for an image the video loader gives None."""
    first = guarded(context, giving(x="an image"))
    second = guarded(context, giving(x=None))
    assert started(collector(), first, second).read("x", 0) == "an image"


def test_none_is_an_answer_for_optional_names(context):
    guard = guarded(context, giving(x=None), optional_names=frozenset({"x"}))
    assert started(collector(), guard).read("x", 0) is None


def test_one_nan_in_the_middle_of_a_big_tensor_is_found_or_left_to_the_sinks(context):
    """The edges look at a sample of large tensors; `test_checks` shows that the sinks see every value."""
    value = torch.zeros(1 << 20)
    value[::2] = float("nan")
    with pytest.raises(SampleError, match="524288 of 1048576"):
        started(collector(), guarded(context, giving(x=value))).read("x", 0)


@pytest.mark.parametrize(
    "value", [torch.zeros(2, dtype=torch.int64), torch.tensor(True), "", 0, {"a": None}, (), [None]]
)
def test_what_may_well_be_is_let_through(context, value):
    assert started(collector(), guarded(context, giving(x=value))).read("x", 0) is value


# What it does about it


def failing(times, error):
    """Raises `error` so many times, then works."""
    left = [times]

    def make(module, *place):
        if left[0]:
            left[0] -= 1
            raise error
        return {"x": 1}

    return make


def test_an_exception_becomes_a_sample_error_with_its_cause(context):
    error = ValueError("no such colour")
    with pytest.raises(SampleError, match="toy: 'x' failed: ValueError: no such colour") as caught:
        started(collector(), guarded(context, failing(1, error))).read("x", 1)
    assert caught.value.__cause__ is error
    assert caught.value.path == "clip1.mp4"


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "busy"), TimeoutError("slow"), ConnectionResetError("gone")])
def test_what_may_pass_is_tried_again(context, error):
    guard = guarded(context, failing(3, error))
    assert started(collector(), guard).read("x", 0) == 1
    assert len(guard.wrapped_module.calls) == 4
    assert total(context.metrics.snapshot(), "module_failures") == 0


def test_what_does_not_pass_is_given_up_after_the_last_attempt(context):
    guard = guarded(context, failing(4, TimeoutError("slow")))
    with pytest.raises(SampleError, match="TimeoutError: slow"):
        started(collector(), guard).read("x", 0)
    assert len(guard.wrapped_module.calls) == 4


def test_what_will_not_pass_is_not_tried_again(context):
    guard = guarded(context, failing(1, ValueError("bad")))
    with pytest.raises(SampleError):
        started(collector(), guard).read("x", 0)
    assert len(guard.wrapped_module.calls) == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), OSError(errno.ENOSPC, "no space left")]
)
def test_what_concerns_all_samples_stops_the_run(context, error):
    with pytest.raises(CriticalError, match="toy cannot go on") as caught:
        started(collector(), guarded(context, failing(1, error))).read("x", 1)
    assert caught.value.__cause__ is error
    assert caught.value.path == "clip1.mp4"


def test_memory_that_runs_short_is_no_fault_of_the_module(context):
    guard = guarded(context, failing(1, MemoryError()))
    with pytest.raises(SampleError, match="not enough memory") as caught:
        started(collector(), guard).read("x", 1)
    assert caught.value.path == "clip1.mp4" and context.recovery.failure_patterns() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CriticalError("out of memory"), UserError("no model")])
def test_what_must_stop_the_run_passes(context, error):
    with pytest.raises(type(error)) as caught:
        started(collector(), guarded(context, failing(1, error))).read("x", 0)
    assert caught.value is error


def test_with_fallback_a_neutral_value_goes_on_and_is_warned_of(context):
    guard = guarded(context, giving(x=None), fallback_strategy="fallback", expected_types={"x": str})
    assert started(collector(), guard).read("x", 3) == ""
    assert "'x' is None; '' is used instead" in samples_of(context, "warning")["clip3.mp4"].reason


def test_with_fallback_an_exception_too_gives_the_neutral_value(context):
    guard = guarded(context, failing(9, ValueError("no")), fallback_strategy="fallback", expected_types={"x": int})
    assert started(collector(), guard).read("x", 3) == 0


@pytest.mark.parametrize("value", [None, torch.tensor([float("nan")])])
def test_an_invented_picture_never_goes_on(context, value):
    guard = guarded(context, giving(x=value), fallback_strategy="fallback", expected_types={"x": torch.Tensor})
    with pytest.raises(SampleError):
        started(collector(), guard).read("x", 0)


def test_with_fallback_what_has_no_neutral_value_is_skipped(context):
    guard = guarded(context, giving(x=None), fallback_strategy="fallback", expected_types={"x": torch.dtype})
    with pytest.raises(SampleError):
        started(collector(), guard).read("x", 0)


def test_with_stop_the_first_failure_ends_the_run(context):
    with pytest.raises(CriticalError, match="toy failed 1 times in a row"):
        started(collector(), guarded(context, giving(x=None), fallback_strategy="stop")).read("x", 0)


@pytest.mark.parametrize("strategy", ["skip", "fallback"])
def test_more_failures_in_a_row_than_allowed_stop_the_run(context, strategy):
    options = {"fallback_strategy": strategy, "expected_types": {"x": str}, "max_failures": 3}
    reader = started(collector(), guarded(context, giving(x=None), **options))
    for index in range(3):
        try:
            assert reader.read("x", index) == ""
        except SampleError:
            assert strategy == "skip"
    with pytest.raises(CriticalError, match="toy failed 4 times in a row") as caught:
        reader.read("x", 3)
    assert "'x' is None" in caught.value.reason
    assert caught.value.path == "clip3.mp4"


def test_a_success_ends_the_row(context):
    make = lambda module, variation, index, name: {"x": None if index % 5 in (1, 2) else 1}  # noqa: E731
    reader = started(collector(60), guarded(context, make, max_failures=2))
    assert [read_or_none(reader, "x", index) for index in range(60)] == [1, None, None, 1, 1] * 12


def read_or_none(reader, name, index):
    try:
        return reader.read(name, index)
    except SampleError:
        return None


def test_failures_of_the_sample_itself_pass_and_are_not_counted(context):
    """A folder with fifty broken clips in a row says nothing about the modules behind the loader."""
    loader = RandomAccess(failing(50, SampleError("clip cannot be read", path="x.mp4", module="loader")))
    behind = guarded(
        context,
        lambda module, variation, index, name: {"y": read(module, variation, index)},
        outputs=("y",),
        max_failures=1,
    )
    reader = started(collector(60), loader, behind)
    for index in range(50):
        with pytest.raises(SampleError, match="clip cannot be read"):
            reader.read("y", index)
    assert reader.read("y", 50) == 1
    assert context.recovery.breaker("toy").state == "closed"
    assert total(context.metrics.snapshot(), "module_failures") == 0


def read(module, variation, index):
    return module._get_previous_item(variation, "x", index)


def test_a_failure_is_counted_once_however_many_guards_lie_behind_it(context):
    inner = guarded(context, failing(1, ValueError("bad")), name="inner")
    outers = [
        guarded(context, lambda module, variation, index, name: {"x": read(module, variation, index)}, name=f"outer{n}")
        for n in range(3)
    ]
    reader = started(collector(), inner, *outers)
    with pytest.raises(SampleError) as caught:
        reader.read("x", 0)
    assert caught.value.module == "inner"
    assert context.metrics.snapshot()["module_failures{module=inner}"] == 1
    assert total(context.metrics.snapshot(), "module_failures") == 1
    assert reader.read("x", 0) == 1


def test_a_guard_around_a_guard_is_the_same_module(context):
    inner = guarded(context, giving(x=None), name="inner")
    outer = EnhancedSafePipelineModule(inner, "outer", context=context)
    with pytest.raises(SampleError) as caught:
        started(collector(), outer).read("x", 4)
    assert (caught.value.module, caught.value.path) == ("inner", "clip4.mp4")


def test_failures_are_patterns_with_their_module_and_suffix(context):
    reader = started(collector(), guarded(context, giving(x=None)))
    for index in range(3):
        read_or_none(reader, "x", index)
    [pattern] = context.recovery.failure_patterns()
    assert (pattern.module, pattern.count, pattern.rate, pattern.suffix) == ("toy", 3, 1.0, ".mp4")


# The circuit breaker


def test_above_half_of_the_calls_failing_the_module_is_left_alone_and_then_tried_once(context, clock):
    works = [False]
    make = lambda module, variation, index, name: {"x": 1 if works[0] or index % 5 == 0 else None}  # noqa: E731
    guard = guarded(context, make, max_failures=100)
    reader = started(collector(100), guard)
    for index in range(10):  # 2 of 10 work
        read_or_none(reader, "x", index)
    asked = len(guard.wrapped_module.calls)
    assert asked == 10
    with pytest.raises(SampleError, match="switched off for a while") as caught:
        reader.read("x", 10)
    assert len(guard.wrapped_module.calls) == asked, "a module that is switched off is not asked"
    assert caught.value.context["this_epoch_only"]

    clock.now += context.settings.breaker_cooldown_seconds
    assert read_or_none(reader, "x", 11) is None, "the one trial fails"
    assert len(guard.wrapped_module.calls) == asked + 1
    with pytest.raises(SampleError, match="switched off"):
        reader.read("x", 10)

    clock.now += context.settings.breaker_cooldown_seconds
    works[0] = True
    assert reader.read("x", 12) == 1
    assert [reader.read("x", index) for index in range(13, 20)] == [1] * 7


def test_a_trial_that_meets_a_broken_sample_is_given_to_the_next_one(context, clock):
    """It never came to the module: it says nothing about it, and must not cost another cooldown."""
    for _ in range(20):
        context.recovery.breaker("toy").record_failure()
    loader = RandomAccess(failing(1, SampleError("clip cannot be read", module="loader")))
    make = lambda module, variation, index, name: {"y": read(module, variation, index)}  # noqa: E731
    reader = started(collector(), loader, guarded(context, make, outputs=("y",)))
    clock.now += context.settings.breaker_cooldown_seconds
    with pytest.raises(SampleError, match="clip cannot be read"):
        reader.read("y", 0)
    assert reader.read("y", 1) == 1
    assert context.recovery.breaker("toy").state == "closed"


def test_at_half_of_the_calls_failing_it_goes_on(context):
    make = lambda module, variation, index, name: {"x": None if index % 2 else 1}  # noqa: E731
    guard = guarded(context, make)
    reader = started(collector(100), guard)
    for index in range(100):
        read_or_none(reader, "x", index)
    assert len(guard.wrapped_module.calls) == 100


def test_a_module_that_is_switched_off_is_not_asked_again_by_the_guards_behind_it(context, clock):
    """Each of them used to try again, and each try of one was a row of tries of the one before it."""
    context.recovery.breaker("inner").record_failure()
    for _ in range(20):
        context.recovery.breaker("inner").record_failure()
    inner = guarded(context, giving(x=1), name="inner")
    behind = [
        guarded(
            context, lambda module, variation, index, name: {"x": read(module, variation, index)}, name=f"behind{n}"
        )
        for n in range(4)
    ]
    reader = started(collector(), inner, *behind)
    with pytest.raises(SampleError, match="switched off"):
        reader.read("x", 0)
    assert [len(guard.wrapped_module.calls) for guard in behind] == [1, 1, 1, 1]
    assert context.recovery.retries == 0


def test_a_module_that_is_switched_off_gives_fallbacks_where_it_may(context):
    for _ in range(20):
        context.recovery.breaker("toy").record_failure()
    options = {"fallback_strategy": "fallback", "expected_types": {"x": str, "y": torch.dtype}}
    reader = started(collector(), guarded(context, giving(x="text", y=1), outputs=("x", "y"), **options))
    assert reader.read("x", 0) == ""
    with pytest.raises(SampleError, match="switched off"):
        reader.read("y", 1)


# Modules that hand out items in order


def serial_values(context, make, count=6, **options):
    guard = guarded(context, make, kind=Serial, **options)
    pipeline = build(collector(count), guard, output("x"))
    pipeline.start_next_epoch()
    return [int(sample["x"]) for sample in pipeline]


def test_a_serial_module_gives_the_same_as_without_a_guard(context):
    make = lambda module: {"x": 10 * module.current_index}  # noqa: E731
    assert serial_values(context, make) == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("bad", [{0}, {5}, {0, 1, 2}, {1, 3, 5}, {3, 4, 5}])
def test_bad_items_of_a_serial_module_are_passed_over_and_the_others_come_in_order(context, bad):
    make = lambda module: {"x": None if module.current_index in bad else module.current_index}  # noqa: E731
    assert serial_values(context, make) == [index for index in range(6) if index not in bad]
    assert len(samples_of(context, "failed")) == len(bad)


@pytest.mark.parametrize("bad", [{0}, {2, 3}])
def test_samples_that_fail_before_a_serial_module_are_passed_over(context, bad):
    def make(module):
        if module.current_index in bad:
            raise SampleError("broken", path=f"{module.current_index}", module="loader")
        return {"x": module.current_index}

    assert serial_values(context, make) == [index for index in range(6) if index not in bad]


def test_the_second_epoch_of_a_serial_module_begins_anew(context):
    make = lambda module: {"x": None if module.current_index == 1 else module.current_index}  # noqa: E731
    pipeline = build(collector(3), guarded(context, make, kind=Serial), output("x"))
    for _ in range(3):
        pipeline.start_next_epoch()
        assert [int(sample["x"]) for sample in pipeline] == [0, 2]


def test_a_serial_module_of_which_nothing_can_be_used_ends_the_epoch(context):
    assert serial_values(context, lambda module: {"x": None}, count=4) == []


def test_a_serial_module_that_stands_still_after_a_failure_stops_the_run(context):
    class Stuck(Serial):
        def has_next(self):
            return True

    guard = guarded_module(Stuck(failing(10**6, SampleError("broken", module="loader"))), context)
    pipeline = build(collector(4), guard, output("x"))
    pipeline.start_next_epoch()
    with pytest.raises(CriticalError, match="stands still"):
        next(pipeline)


def test_the_breaker_never_holds_up_a_serial_module(context):
    """There is no later for an item that comes in order: waiting would end the epoch, or spin."""
    make = lambda module: {"x": module.current_index if module.current_index % 4 == 3 else None}  # noqa: E731
    assert serial_values(context, make, count=40) == list(range(3, 40, 4))


# Its records


def test_time_is_the_modules_own(context, monkeypatch):
    import wan_fixes.pipeline.stopwatch as stopwatch

    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def slow(seconds, name=None):
        def make(module, variation, index, requested):
            now[0] += seconds
            before = module._get_previous_item(variation, name, index) if name else 0
            now[0] += seconds
            return {requested: before + 1}

        return make

    first = guarded(context, slow(1.0), outputs=("a",), name="first")
    second = guarded(context, slow(10.0, "a"), outputs=("b",), in_name="a", name="second")
    third = guarded(context, slow(100.0, "b"), outputs=("c",), in_name="b", name="third")
    assert started(collector(), first, second, third).read("c", 0) == 3
    values = context.metrics.snapshot()
    assert [values[f"{name}.seconds"] for name in ("first", "second", "third")] == [2.0, 20.0, 200.0]


def test_a_failure_leaves_no_clock_running(context):
    from wan_fixes.pipeline import stopwatch

    read_or_none(started(collector(), guarded(context, failing(1, ValueError("bad")))), "x", 0)
    assert getattr(stopwatch._running, "watch", None) is None


# The interface of the seed document


def test_validate_item(context):
    guard = guarded(context, giving(x=1))
    assert guard.validate_item("text", str)
    assert guard.validate_item(torch.ones(2), torch.Tensor)
    assert not guard.validate_item(None, str)
    assert not guard.validate_item(1, str)
    assert not guard.validate_item(torch.tensor([float("nan")]), torch.Tensor)


def test_get_fallback_value(context):
    guard = guarded(context, giving(x=1))
    values = {kind: guard.get_fallback_value("x", kind) for kind in (str, int, float, bool, list, tuple, dict)}
    assert values == {str: "", int: 0, float: 0.0, bool: False, list: [], tuple: (), dict: {}}
    assert guard.get_fallback_value("x", torch.Tensor).tolist() == [0.0]
    assert guard.get_fallback_value("x", object) is None


def test_handle_none_item(context):
    skip = guarded(context, giving(x=1))
    fall = guarded(context, giving(x=1), fallback_strategy="fallback", expected_types={"x": str})
    started(collector(), skip, fall)
    with pytest.raises(SampleError, match="'x' is None"):
        skip.handle_none_item("x", 0)
    assert fall.handle_none_item("x", 0) == ""


def test_should_skip_sample(context):
    guard = guarded(context, giving(x=1), max_failures=2)
    assert [guard.should_skip_sample(count) for count in (1, 2, 3)] == [True, True, False]
    assert not guarded(context, giving(x=1), fallback_strategy="stop").should_skip_sample(1)


def test_a_sample_is_named_by_its_number_where_its_order_has_changed(context):
    """Behind a sorting an index no longer tells the file; a wrong name would be worse than none."""
    order = [2, 0, 1]
    sorting = SingleVariation(
        lambda module, index, name: {"image_path": f"clip{order[index]}.mp4"}, ("image_path",), "concept"
    )
    guard = guarded(context, giving(x=None))
    with pytest.raises(SampleError) as caught:
        started(collector(3), sorting, guard).read("x", 0)
    assert caught.value.path == "sample 0"


def test_contexts_that_are_made_by_themselves_leave_nothing_behind():
    context = PipelineContext.create()
    folder = context.cache_dir
    assert folder.is_dir()
    context.close()
    assert not folder.exists()


def test_nothing_is_recorded_of_what_went_well(context):
    reader = started(collector(), guarded(context, giving(x=1)))
    assert [reader.read("x", index) for index in range(6)] == [1] * 6
    assert samples_of(context) == {} == samples_of(context, "warning")
    assert events_of(context, "module_failure") == []


def test_what_a_module_draws_hangs_on_the_content_and_not_on_the_place_or_the_seed(context, tmp_path):
    """Stock draws by both, and the sample cache holds what it drew."""

    def draw(module, variation, index, name):
        return {"x": module._get_rand(variation, index).random()}

    def draws(names, **options):
        paths = [str(tmp_path / name) for name in names]
        for path, name in zip(paths, names, strict=True):
            Path(path).write_text(name)
        guards = [guarded(context, draw) for _ in range(2)]
        started(Collector([concept_of()] * len(paths), paths), *guards, **options)
        return {
            name: [guard.get_item(variation, index)["x"] for guard in guards for variation in range(3)]
            for index, name in enumerate(names)
        }

    before = draws(["a", "b", "c"])
    after = draws(["c", "x", "a"], seed=99)
    assert (after["a"], after["c"]) == (before["a"], before["c"])
    every = [number for numbers in before.values() for number in numbers]
    assert len(set(every)) == len(every), "each sample, each variation, and each of two like modules draws its own"


def test_what_a_module_draws_for_an_epoch_hangs_on_the_seed(context):
    def draw(module, variation, index, name):
        return {"x": module._get_rand(variation).random()}

    first, same, other = (started(collector(), guarded(context, draw), seed=seed).read("x", 0) for seed in (1, 1, 2))
    assert first == same != other
