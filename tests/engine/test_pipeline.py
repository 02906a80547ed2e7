"""Epochs: what is started when, where resuming begins, and how serial modules are restarted."""

from __future__ import annotations

import pytest
import torch

from .toys import build, next_epoch, values


def counting(module):
    return {"x": module.current_index}


def test_definitions_may_be_nested_and_hold_none(engine, toys):
    a, b, c = (toys.Reader() for _ in range(3))
    pipeline = build(engine, None, [a, [None, [], [[b]]]], [None], c)
    assert pipeline.modules == [a, b, c]
    # The place that a module draws its numbers from is the one after flattening.
    places = [module._get_rand(0).random() for module in (a, b, c)]
    d, e, f = (toys.Reader() for _ in range(3))
    build(engine, d, e, f)
    assert [module._get_rand(0).random() for module in (d, e, f)] == places


def test_the_end_is_found_by_the_name_of_its_class_and_the_last_one_counts(engine, toys):
    class OutputPipelineModule(toys.Serial):
        """Somebody else's."""

    source = toys.RandomAccess(lambda module, variation, index, name: {"x": index})
    first = engine.OutputPipelineModule(["x"])
    last = OutputPipelineModule(lambda module: {"x": -module.current_index}, outputs=(), length=2)
    assert next_epoch(build(engine, source, first, last)) == [0, -1]


def test_a_random_access_module_is_started_once_in_its_life(engine, toys):
    module = toys.RandomAccess(lambda *_: {"x": 0})
    pipeline = build(engine, module, engine.OutputPipelineModule(["x"]), initial_epoch=3)
    assert module.started is False
    for _ in range(3):
        next_epoch(pipeline)
    assert module.calls_of("start") == [(3,)]
    assert module.started is True


def test_a_random_access_module_whose_start_failed_is_started_again(engine, toys):
    def fail_once(module, variation):
        if len(module.calls_of("start")) == 1:
            raise OSError("not yet")

    module = toys.RandomAccess(lambda *_: {"x": 0}, on_start=fail_once)
    pipeline = build(engine, module, engine.OutputPipelineModule(["x"]))
    with pytest.raises(OSError):
        pipeline.start_next_epoch()
    pipeline.start_next_epoch()
    assert module.calls_of("start") == [(0,), (1,)]


def test_a_single_variation_module_is_started_in_each_epoch_and_knows_which(engine, toys):
    seen = []
    module = toys.SingleVariation(
        lambda module, index, name: {"x": module.current_variation},
        on_start=lambda module, variation: seen.append((variation, module.current_variation)),
        length=1,
    )
    pipeline = build(engine, module, engine.OutputPipelineModule(["x"]), initial_epoch=2)
    assert module.current_variation == -1
    assert [next_epoch(pipeline) for _ in range(3)] == [[2], [3], [4]]
    assert seen == [(2, 2), (3, 3), (4, 4)]


def test_a_serial_module_is_started_with_the_epoch_and_again_with_its_first_sample(engine, toys):
    seen = []
    module = toys.Serial(
        counting,
        length=2,
        on_start=lambda module, *place: seen.append((*place, module.current_variation, module.current_index)),
    )
    pipeline = build(engine, module, engine.OutputPipelineModule(["x"]))
    assert (module.current_variation, module.current_index) == (-1, -1)

    pipeline.start_next_epoch()
    assert seen == [(0, 0, 0, 0)]
    next(pipeline)
    assert seen == [(0, 0, 0, 0)] * 2
    next(pipeline)
    assert seen == [(0, 0, 0, 0)] * 2
    next_epoch(pipeline)
    assert seen == [(0, 0, 0, 0)] * 2 + [(1, 0, 1, 0)] * 2


def test_modules_start_in_order_and_may_read_those_before(engine, toys):
    first = toys.SingleVariation(
        lambda module, index, name: {"x": module.drawn},
        on_start=lambda module, variation: setattr(module, "drawn", 10 + variation),
        length=1,
    )
    second = toys.SingleVariation(
        lambda module, index, name: {"x": module.read + 1},
        on_start=lambda module, variation: setattr(module, "read", module._get_previous_item(variation, "x", 0)),
        length=1,
    )
    pipeline = build(engine, first, second, engine.OutputPipelineModule(["x"]))
    assert [next_epoch(pipeline) for _ in range(2)] == [[11], [12]]


def test_what_a_late_start_takes_from_a_serial_module_is_there_again_for_the_samples(engine, toys):
    """The reason why serial modules start twice."""
    serial = toys.Serial(counting, length=3)

    def read_two(module, variation):
        module.taken = [module._get_previous_item(variation, "x", index) for index in range(2)]

    reads_at_start = toys.SingleVariation(lambda *_: {}, outputs=(), on_start=read_two)
    pipeline = build(engine, serial, reads_at_start, engine.OutputPipelineModule(["x"]))
    for _ in range(2):
        assert next_epoch(pipeline) == [0, 1, 2]
        assert reads_at_start.taken == [0, 1]


@pytest.mark.parametrize(("sample", "batch_size", "begins_at"), [(0, 2, 0), (1, 2, 0), (2, 2, 2), (5, 3, 3), (7, 1, 7)])
def test_resuming_begins_at_a_whole_batch_of_the_first_epoch_only(engine, toys, sample, batch_size, begins_at):
    source = toys.RandomAccess(lambda module, variation, index, name: {"x": 100 * variation + index}, length=8)
    serial = toys.Serial(
        lambda module: {"x": module._get_previous_item(module.current_variation, "x", module.current_index)}, length=8
    )
    pipeline = build(
        engine,
        source,
        serial,
        engine.OutputPipelineModule(["x"]),
        batch_size=batch_size,
        initial_epoch=4,
        initial_index=sample,
    )
    assert next_epoch(pipeline) == [400 + index for index in range(begins_at, 8)]
    assert next_epoch(pipeline) == [500 + index for index in range(8)]
    assert serial.calls_of("start") == [(4, begins_at)] * 2 + [(5, 0)] * 2


def test_resuming_behind_the_end_gives_an_empty_epoch_and_then_whole_ones(engine, toys):
    source = toys.RandomAccess(lambda module, variation, index, name: {"x": index}, length=2)
    pipeline = build(engine, source, engine.OutputPipelineModule(["x"]), initial_index=5)
    assert [next_epoch(pipeline) for _ in range(2)] == [[], [0, 1]]


def test_an_epoch_that_is_over_stays_over_until_the_next_is_started(engine, toys):
    source = toys.RandomAccess(lambda module, variation, index, name: {"x": index}, length=2)
    pipeline = build(engine, source, engine.OutputPipelineModule(["x"]))
    assert iter(pipeline) is pipeline
    assert next_epoch(pipeline) == [0, 1]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(pipeline)
    assert next_epoch(pipeline) == [0, 1]


def test_an_epoch_may_be_left_in_the_middle(engine, toys):
    source = toys.RandomAccess(lambda module, variation, index, name: {"x": 10 * variation + index})
    pipeline = build(engine, source, engine.OutputPipelineModule(["x"]))
    pipeline.start_next_epoch()
    assert values([next(pipeline), next(pipeline)]) == [0, 1]
    assert next_epoch(pipeline) == [10, 11, 12, 13]


def test_items_are_forgotten_between_epochs(engine, toys):
    source = toys.RandomAccess(lambda module, *_: {"x": len(module.calls_of("item"))}, length=1)
    fixed_variation = toys.RandomAccess(
        lambda module, variation, index, name: {"x": module._get_previous_item(0, "x", index)}, length=1
    )
    pipeline = build(engine, source, fixed_variation, engine.OutputPipelineModule(["x"]))
    assert [next_epoch(pipeline) for _ in range(3)] == [[1], [2], [3]]


def test_items_read_while_starting_are_forgotten_before_the_first_sample(engine, toys):
    source = toys.RandomAccess(lambda module, *_: {"x": len(module.calls_of("item"))}, length=1)
    reads_at_start = toys.SingleVariation(
        lambda *_: {}, outputs=(), on_start=lambda module, variation: module._get_previous_item(variation, "x", 0)
    )
    pipeline = build(engine, source, reads_at_start, engine.OutputPipelineModule(["x"]))
    assert [next_epoch(pipeline) for _ in range(2)] == [[2], [4]]


@pytest.mark.parametrize("kind", ["SingleVariation", "Serial"])
def test_another_variation_than_the_current_one_is_refused(engine, toys, kind):
    source = getattr(toys, kind)(lambda *_: {"x": 0})
    reader = toys.Reader()
    build(engine, source, reader, initial_epoch=3).start_next_epoch()
    with pytest.raises(Exception, match="wrong variation requested"):
        reader._get_previous_item(2, "x", 0)
    assert source.calls_of("item") == []
    assert reader._get_previous_item(3, "x", 0) == 0


def test_another_variation_is_refused_for_a_missing_name_too(engine, toys):
    source = toys.SingleVariation(lambda module, index, name: {name: index}, outputs=("x", "y"))
    reader = toys.Reader()
    build(engine, source, reader).start_next_epoch()
    assert reader._get_previous_item(0, "x", 0) == 0
    source.current_variation = 1
    with pytest.raises(Exception, match="wrong variation requested"):
        reader._get_previous_item(0, "y", 0)


@pytest.mark.parametrize("wrong", [1, 2, 4])
def test_a_serial_module_gives_its_items_in_order_only(engine, toys, wrong):
    serial = toys.Serial(counting, length=9)
    reader = toys.Reader()
    build(engine, serial, reader).start_next_epoch()
    for index in range(3):
        assert [reader._get_previous_item(0, "x", index) for _ in range(2)] == [index, index]
    if wrong != 2:  # the last one is remembered
        with pytest.raises(Exception, match="wrong index requested"):
            reader._get_previous_item(0, "x", wrong)
    assert reader._get_previous_item(0, "x", 2) == 2
    assert reader._get_previous_item(0, "x", 3) == 3
    assert serial.calls_of("item") == [(0,), (1,), (2,), (3,)]


def test_asking_a_serial_module_for_its_first_item_restarts_all_before_it_and_none_behind(engine, toys):
    source = toys.RandomAccess(lambda module, variation, index, name: {"w": index}, outputs=("w",))
    before = toys.Serial(
        lambda module: {"b": module._get_previous_item(module.current_variation, "w", module.current_index)},
        outputs=("b",),
    )
    serial = toys.Serial(
        lambda module: {"x": module._get_previous_item(module.current_variation, "b", module.current_index)}
    )
    behind = toys.Serial(lambda module: {"z": module.current_index}, outputs=("z",))
    reader = toys.Reader()
    build(engine, source, before, serial, behind, reader).start_next_epoch()

    assert [reader._get_previous_item(0, "x", index) for index in range(3)] == [0, 1, 2]
    assert reader._get_previous_item(0, "z", 0) == 0
    assert [reader._get_previous_item(0, "x", index) for index in (0, 0, 1)] == [0, 0, 1]

    assert before.calls_of("start") == serial.calls_of("start") == [(0, 0), (0, 0)]
    assert behind.calls_of("start") == [(0, 0)]
    assert behind.current_index == 1
    assert reader._get_previous_item(0, "z", 0) == 0
    assert len(behind.calls_of("item")) == 1
    assert [index for _, index, _ in source.calls_of("item")] == [0, 1, 2, 0, 1]


def test_a_sample_that_failed_is_tried_again_and_the_others_follow(engine, toys):
    failures = iter([False, True, True, False, False])

    def hiccup(module):
        if next(failures):
            raise OSError("hiccup")
        return {"x": module.current_index}

    pipeline = build(engine, toys.Serial(hiccup, length=3), engine.OutputPipelineModule(["x"]))
    pipeline.start_next_epoch()
    assert values([next(pipeline)]) == [0]
    for _ in range(2):
        with pytest.raises(OSError):
            next(pipeline)
    assert values(pipeline) == [1, 2]


def test_a_failure_behind_a_serial_module_does_not_make_it_skip(engine, toys):
    failures = iter([False, True, False, False])

    def hiccup(module, variation, index, name):
        x = module._get_previous_item(variation, "x", index)
        if next(failures):
            raise OSError("hiccup")
        return {"y": x}

    serial = toys.Serial(counting, length=3)
    behind = toys.RandomAccess(hiccup, outputs=("y",), length=3)
    pipeline = build(engine, serial, behind, engine.OutputPipelineModule(["x", "y"]))
    pipeline.start_next_epoch()
    next(pipeline)
    with pytest.raises(OSError):
        next(pipeline)
    rest = list(pipeline)
    assert values(rest, "x") == values(rest, "y") == [1, 2]
    assert serial.calls_of("item") == [(0,), (1,), (2,)]


def test_no_gradients_are_recorded_while_starting_or_loading(engine, toys):
    seen = []

    def note(*_):
        seen.append(torch.is_grad_enabled())
        return {"x": 0}

    modules = [
        toys.RandomAccess(note, on_start=note),
        toys.SingleVariation(note, outputs=("y",), on_start=note),
        toys.Serial(note, outputs=("z",), on_start=note),
    ]
    modules[1].item = lambda *_: {"y": note()["x"]}
    modules[2].item = lambda *_: {"z": note()["x"]}
    pipeline = build(engine, *modules, engine.OutputPipelineModule(["x", "y", "z"]))
    pipeline.start_next_epoch()
    next(pipeline)
    assert seen == [False] * 7
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("length", "samples"), [(5, 5), (0, 0), (-3, 0)])
def test_the_length_of_an_epoch_is_never_negative(engine, toys, length, samples):
    source = toys.RandomAccess(lambda *_: {"x": 0}, length=length)
    pipeline = build(engine, source, engine.OutputPipelineModule(["x"]))
    pipeline.start_next_epoch()
    assert pipeline.approximate_length() == samples
