"""What is traced of a pipeline is all that happened in it: compared with what its modules say of themselves."""

from __future__ import annotations

import errno
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import SampleError
from wan_fixes.media import FramePlan
from wan_fixes.pipeline import EnhancedSafePipelineModule
from wan_fixes.pipeline.observing import observe
from wan_fixes.pipeline.tracing import TraceRecord, describe_item, log_trace, trace_modules

from .toys import Collector, RandomAccess, Serial, SingleVariation, build, concept_of, output, started
from .world import World, concept_over, write_sample

KINDS = {"random": RandomAccess, "single": SingleVariation, "serial": Serial}
PATIENT = {"breaker_min_calls": 10_000, "max_consecutive_failures": 10_000}

VALUES = st.one_of(
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(lambda shape: torch.ones(shape, dtype=torch.float16)),
    st.text(max_size=200),
    st.integers(-5, 5),
    st.floats(0, 1),
    st.lists(st.integers(0, 9), max_size=9),
    st.tuples(st.integers(1, 99), st.integers(1, 99)),
    st.dictionaries(st.sampled_from(["path", "seed", "a<b>", "name"]), st.integers()),
    st.builds(
        lambda start, steps, decoder: FramePlan(
            times=tuple(start / 8 + number / 16 for number in range(steps)),
            indices=tuple(range(start, start + steps)),
            decoder=decoder,
        ),
        st.integers(0, 50),
        st.integers(1, 9),
        st.sampled_from(["pyav", "torchcodec", "decord"]),
    ),
    st.none(),
)
FAULTS = {
    "value": lambda: ValueError("no such <colour>"),
    "key": lambda: KeyError("frames"),
    "sample": lambda: SampleError("broken", path="clip.mp4", reason="torn in two", fix="mend it"),
    "busy": lambda: OSError(errno.EBUSY, "busy for a moment"),
}


@dataclass(frozen=True)
class Spec:
    """A module: of which kind, what it reads and gives, with which values, and for which samples it fails and how."""

    kind: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    values: tuple[Any, ...]
    is_guarded: bool
    faults: dict[int, str] = field(default_factory=dict)


SPECS = st.builds(
    Spec,
    kind=st.sampled_from(list(KINDS)),
    reads=st.lists(
        st.sampled_from(["a", "b", "c", "image_path", "concept.text.prompt", "concept.nothing"]),
        max_size=3,
        unique=True,
    ).map(tuple),
    gives=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=2, unique=True).map(tuple),
    values=st.tuples(VALUES, VALUES),
    is_guarded=st.booleans(),
    faults=st.dictionaries(st.integers(0, 3), st.sampled_from(list(FAULTS)), max_size=2),
)


@dataclass(eq=False)
class Entry:
    """What a module says of one call of itself."""

    at: int
    variation: int
    index: int
    asked_by: int | None
    reads: dict[str, Any] = field(default_factory=dict)
    gave: dict[str, Any] | None = None
    error: Exception | None = None


class Witnesses:
    """Makes modules that write down each call of theirs."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._inside = threading.local()

    def module(self, spec: Spec, at: int) -> Any:
        hiccups = itertools.count()

        def make(module: Any, *place: Any) -> dict[str, Any]:
            if spec.kind == "random":
                variation, index = place[:2]
            else:
                variation = module.current_variation
                index = place[0] if spec.kind == "single" else module.current_index
            stack = self._inside.__dict__.setdefault("stack", [])
            entry = Entry(at, variation, index, stack[-1].at if stack else None)
            self.entries.append(entry)
            stack.append(entry)
            try:
                for name in spec.reads:
                    entry.reads[name] = module._get_previous_item(variation, name, index)
                fault = spec.faults.get(index)
                if fault is not None and (fault != "busy" or next(hiccups) % 3 != 2):
                    raise FAULTS[fault]()
                entry.gave = dict(zip(spec.gives, spec.values, strict=False))
                return dict(entry.gave)
            except Exception as error:
                entry.error = error
                raise
            finally:
                stack.pop()

        return KINDS[spec.kind](make, spec.gives)


def run(specs: list[Spec], samples: int, epochs: int, context: Any) -> tuple[list[Entry], list[TraceRecord], list[Any]]:
    """Run the pipeline to its end, past every failure: what its modules say, and what was traced."""
    witnesses, records = Witnesses(), []
    concepts = [concept_of(text={"prompt": f"caption {number}"}) for number in range(samples)]
    modules: list[Any] = [Collector(concepts)]
    for at, spec in enumerate(specs, start=1):
        module = witnesses.module(spec, at)
        is_guarded = spec.is_guarded and spec.kind != "serial"  # no host guards those
        modules.append(EnhancedSafePipelineModule(module, f"m{at}", context=context) if is_guarded else module)
    last = output("image_path", *{name for spec in specs for name in spec.gives})
    pipeline = build(*modules, last)
    trace_modules(pipeline.modules, records.append)
    ends = []
    for _ in range(epochs):
        pipeline.start_next_epoch()
        for _ in range(samples):
            try:
                ends.append(next(pipeline))
            except Exception as error:  # also what a serial module says that was left behind
                ends.append(error)
                last.current_index += 1
    return witnesses.entries, records, ends


@settings(max_examples=times(150, 600))
@given(specs=st.lists(SPECS, min_size=1, max_size=5), samples=st.integers(1, 3), epochs=st.integers(1, 2))
def test_property_5_every_execution_of_a_module_is_traced_with_all_that_went_in_and_came_out(
    contexts, specs, samples, epochs
):
    """Feature: wan-training-pipeline-fixes, Property 5: Pipeline Logging Completeness

    For any pipeline module execution, the system should log input/output item names and types, data flow tracing
    information, and video processing details with sufficient completeness for debugging.
    """
    entries, records, ends = run(specs, samples, epochs, contexts.new(**PATIENT))

    by_number = {record.number: record for record in records}
    assert sorted(by_number) == list(range(1, len(records) + 1))  # each call once, in the order in which they began
    traced: dict[Any, list[TraceRecord]] = {}
    for record in sorted(records, key=lambda record: record.number):
        traced.setdefault((record.at, record.variation, record.index), []).append(record)
    told: dict[Any, list[Entry]] = {}
    for entry in entries:
        told.setdefault((entry.at, entry.variation, entry.index), []).append(entry)

    of_modules = {place: some for place, some in traced.items() if 1 <= place[0] <= len(specs)}
    assert of_modules.keys() == told.keys()
    for place, calls in of_modules.items():
        attempts = iter(told[place])
        for record in calls:
            check(record, attempts, specs[place[0] - 1], by_number)
        assert not list(attempts)

    last = [record for record in records if record.at == len(specs) + 1]
    given = [end for end in ends if not isinstance(end, Exception)]
    assert sum(bool(record.outputs) for record in last) == len(given)
    told_errors = {record.error for record in last}
    assert all(f"SampleError: {end}" in told_errors for end in ends if isinstance(end, SampleError))


def check(record: TraceRecord, attempts: Any, spec: Spec, by_number: dict[int, TraceRecord]) -> None:
    """Compare one record with what the module says of the attempts that belong to it."""
    assert record.module == KINDS[spec.kind].__name__
    assert record.seconds >= 0
    failures = [next(attempts) for _ in record.retried]
    assert record.retried == [f"{type(entry.error).__name__}: {entry.error}" for entry in failures]
    is_guarded = spec.is_guarded and spec.kind != "serial"
    if is_guarded:
        found_unfit = f"m{record.at}: '" in record.error and "is None" in record.error
        entry = failures[-1] if failures and record.error and not found_unfit else next(attempts)
    else:
        assert not failures
        entry = next(attempts)
    asker = by_number.get(record.asked_by)
    assert asker is not None
    assert entry.asked_by is None or asker.at == entry.asked_by

    assert record.inputs.keys() >= entry.reads.keys()
    for name, value in entry.reads.items():
        assert_described(record.inputs[name], value)
    if entry.error is not None and not is_guarded:
        assert record.error == f"{type(entry.error).__name__}: {entry.error}"
    if record.error:
        assert not record.outputs
        cause = "is None" if entry.error is None else str(entry.error.args[0])
        assert cause in record.error
    else:
        assert record.outputs.keys() == entry.gave.keys()
        for name, value in entry.gave.items():
            assert_described(record.outputs[name], value)
    assert record.module in str(record) and f"sample {record.index}, variation {record.variation}" in str(record)
    assert all(name in str(record) for name in record.inputs)


def assert_described(text: str, value: Any) -> None:
    """Type, shape, and of a plan all that decides which frames are decoded."""
    if torch.is_tensor(value):
        assert text == f"float16 {list(value.shape)}"
    elif isinstance(value, FramePlan):
        for part in (
            f"{len(value.times)} frames",
            f"{value.indices[0]} to {value.indices[-1]}",
            f"from {value.times[0]:.2f} s to {value.times[-1]:.2f} s",
            value.decoder,
        ):
            assert part in text
    elif isinstance(value, str):
        assert repr(value[:10])[1:-1] in text and (len(value) <= 80 or str(len(value)) in text)
    elif value is None:
        assert text == "None"
    else:
        assert text.startswith(type(value).__name__)
        assert not isinstance(value, dict) or all(key in text for key in value)


def test_threads_do_not_mix_up_who_asked_whom(context):
    def make(name):
        return lambda module, variation, index, requested: {
            name: module._get_previous_item(variation, module.in_name, index)
        }

    first = RandomAccess(make("a"), ("a",), "image_path")
    second = RandomAccess(make("b"), ("b",), "a")
    reader = started(Collector([concept_of()] * 64), first, second)
    records: list[tuple[int, TraceRecord]] = []
    trace_modules(reader.pipeline.modules[:-1], lambda record: records.append((threading.get_ident(), record)))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda index: reader.read("b", index), range(64)))) == 64

    threads = {record.number: thread for thread, record in records}
    by_number = {record.number: record for _, record in records}
    assert len(by_number) == 3 * 64
    for thread, record in records:
        if record.at > 0 and record.at < 2:
            asker = by_number[record.asked_by]
            assert (asker.at, asker.index, threads[asker.number]) == (2, record.index, thread)
            assert record.inputs == {"image_path": f"'clip{record.index}.mp4'"}


def test_what_a_module_reads_through_another_one_is_noted_as_read_by_it(context):
    helper = RandomAccess(lambda module, *place: {"x": 1}, ("x",), "image_path")
    user = RandomAccess(
        lambda module, variation, index, name: {"y": len(helper._get_previous_item(variation, "image_path", index))},
        ("y",),
        "x",
    )
    reader = started(Collector([concept_of()]), helper, user)
    records: list[TraceRecord] = []
    trace_modules(reader.pipeline.modules[:-1], records.append)
    assert reader.read("y", 0) == len("clip0.mp4")
    (record,) = [record for record in records if record.at == 2]
    assert (record.inputs, record.outputs) == ({"image_path": "'clip0.mp4'"}, {"y": "int 9"})


def test_what_a_cache_reads_to_fill_itself_is_traced_too(context, tmp_path):
    folder = tmp_path / "clips"
    for number in range(3):
        write_sample(folder, number)
    world = World(context, tmp_path / "cache", [concept_over(folder)], guards=True)
    records: list[TraceRecord] = []
    trace_modules(world.pipeline.modules, records.append)
    assert len(world.epoch()) == 3
    cached = [record for record in records if record.module == "ValidatedDiskCache" and "latent_image" in record.inputs]
    assert sorted(record.index for record in cached) == [0, 1, 2]
    assert all(record.asked_by is None and not record.outputs for record in cached)
    assert all(record.inputs["latent_image"] == "float32 [2]" for record in cached)
    sorted_batches = [record for record in records if record.module == "SafeAspectBatchSorting" and record.outputs]
    assert len(sorted_batches) == 3


def test_of_another_samples_item_the_trace_says_whose_it_is(context):
    shifted = RandomAccess(
        lambda module, variation, index, name: {"x": module._get_previous_item(variation, "image_path", index + 1)}
    )
    reader = started(Collector([concept_of()] * 2), shifted)
    records: list[TraceRecord] = []
    trace_modules(reader.pipeline.modules[:-1], records.append)
    reader.read("x", 0)
    assert records[-1].inputs == {"image_path of sample 1, variation 0": "'clip1.mp4'"}


def test_time_spent_in_other_modules_is_not_counted_twice(context, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("wan_fixes.pipeline.tracing.time.perf_counter", lambda: now[0])

    def working(seconds, name, source):
        def make(module, variation, index, requested):
            value = module._get_previous_item(variation, source, index)
            now[0] += seconds
            return {name: value}

        return RandomAccess(make, (name,), source)

    reader = started(Collector([concept_of()]), working(3, "a", "image_path"), working(5, "b", "a"))
    records: list[TraceRecord] = []
    trace_modules(reader.pipeline.modules[:-1], records.append)
    reader.read("b", 0)
    assert [(record.at, record.seconds) for record in records] == [(0, 0.0), (1, 3.0), (2, 5.0)]


def test_what_goes_wrong_with_tracing_does_not_reach_the_pipeline(context):
    class Sly:
        @property
        def __dict__(self):
            raise RuntimeError("look away")

    def refuse(record):
        raise OSError("no space left")

    reader = started(Collector([concept_of()]), RandomAccess(lambda *_: {"x": Sly()}))
    trace_modules(reader.pipeline.modules[:-1], refuse)
    assert isinstance(reader.read("x", 0), Sly)


def test_the_end_of_an_epoch_is_no_error(context):
    def end(module):
        raise StopIteration

    records: list[TraceRecord] = []
    pipeline = build(Collector([concept_of()]), Serial(end), output("x"))
    trace_modules(pipeline.modules, records.append)
    pipeline.start_next_epoch()
    assert list(pipeline) == []
    assert [record.error for record in records if record.at == 1] == [""]


def test_each_item_that_a_guard_passes_over_is_a_call_of_its_own(contexts):
    def make(module):
        if module.current_index == 0:
            raise ValueError("not this one")
        return {"x": module.current_index}

    records: list[TraceRecord] = []
    guard = EnhancedSafePipelineModule(Serial(make), "Serial", context=contexts.new(**PATIENT))
    pipeline = build(Collector([concept_of()] * 2), guard, output("x"))
    trace_modules(pipeline.modules, records.append)
    pipeline.start_next_epoch()
    assert int(next(pipeline)["x"]) == 1
    inner, outer = [record for record in records if record.at == 1]
    assert (outer.index, outer.retried, outer.outputs) == (0, ["ValueError: not this one"], {"x": "int 1"})
    assert (inner.index, inner.asked_by, inner.outputs) == (1, outer.number, {"x": "int 1"})


def test_what_is_measured_of_a_clip_is_logged_with_all_its_fields(contexts, tmp_path, caplog):
    from clips import write_clip
    from painted import paint_frame

    clip = write_clip(tmp_path / "clip.mp4", [paint_frame(number, width=64, height=48) for number in range(8)])
    path = str(clip or tmp_path / "clip.mp4")
    context = contexts.new()
    with caplog.at_level(logging.DEBUG, "wan_fixes"):
        context.probe(path)
    (logged,) = [record for record in caplog.records if hasattr(record, "measured")]
    assert logged.clip == path
    wanted = {"width": 64, "height": 48, "fps": 16.0, "frame_count": 8, "codec": "h264", "decoder": "pyav"}
    assert {name: logged.measured[name] for name in wanted} == wanted
    assert len(logged.measured["frame_times"]) == 8


def test_the_pipeline_and_the_versions_belong_to_the_record_of_a_run(contexts):
    context = contexts.new()
    modules = build(Collector([concept_of()]), RandomAccess(lambda *_: {"x": 1})).modules
    observe(modules, context, "training")
    context.run.flush()
    states = context.run._database.states(context.run.id)
    assert [module["name"] for module in states["pipeline training"]] == ["Collector", "RandomAccess"]
    assert {"Python", "system", "torch", "av"} <= states["versions"].keys()


@pytest.mark.parametrize("trace", [False, True])
def test_switched_off_nothing_is_laid_around_a_module(contexts, trace):
    context = contexts.new(trace=trace)
    module = RandomAccess(lambda *_: {"x": 1})
    guard = EnhancedSafePipelineModule(RandomAccess(lambda *_: {"y": 1}, ("y",)), "y", context=context)
    pipeline = build(Collector([concept_of()]), module, guard)
    observe(pipeline.modules, context, "training")
    for one in (*pipeline.modules, guard.wrapped_module):
        assert ({"get_item", "_get_previous_item"} <= vars(one).keys() or "get_item" in vars(one)) == trace


def test_the_log_has_a_line_with_all_fields_whatever_is_in_the_names(caplog):
    record = TraceRecord(
        3, "Loader\nforged", 7, 1, number=5, inputs={"a": "'x\n\u202ey'"}, error="OSError: token hf_abcdefghijk"
    )
    with caplog.at_level(logging.INFO, "wan_fixes"):
        log_trace(record)
    (logged,) = caplog.records
    assert "\n" not in logged.getMessage() and "\u202e" not in logged.getMessage()
    assert "hf_abcdefghijk" not in logged.getMessage()
    assert logged.trace["index"] == 7 and logged.trace["number"] == 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 3), "float32 [2, 3]"),
        ((5, 32, 32), "tuple (5, 32, 32)"),
        (["a caption"], "list of 1: 'a caption'"),
        ([], "list of 0"),
        ({"path": 1, "seed": 2}, "dict of path, seed"),
        (FramePlan(times=(), indices=()), "plan of no frames, by pyav"),
        ("x" * 100, f"'{'x' * 80}'… (100 characters)"),
        (True, "bool True"),
        (object(), "object"),
    ],
)
def test_items_are_described_by_what_helps(value, text):
    assert describe_item(value) == text
