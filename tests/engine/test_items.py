"""How a module reads the items of the modules before it, and when these are computed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from .toys import build


def in_other_thread(function, *args):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *args).result(timeout=30)


def numbered(module, variation, index, name):
    """A complete item that says where it comes from."""
    return {"x": (variation, index), "y": -index}


def only_requested(module, variation, index, name):
    return {name: (name, variation, index)}


def read_after(engine, *modules):
    """A reader behind `modules`, in a started pipeline."""
    reader = engine.toys.Reader()
    build(engine, *modules, reader).start_next_epoch()
    return reader


def test_a_name_is_read_from_the_nearest_module_before(engine, toys):
    far = toys.RandomAccess(lambda *_: {"x": "far"})
    near = toys.RandomAccess(lambda *_: {"x": "near"})
    reader = toys.Reader()
    after = toys.RandomAccess(lambda *_: {"x": "after"})
    build(engine, far, near, reader, after).start_next_epoch()

    assert reader._get_previous_item(0, "x", 0) == "near"
    assert near._get_previous_item(0, "x", 0) == "far"
    assert far._get_previous_item(0, "x", 0) is None
    assert after.calls_of("item") == []


def test_several_names_of_one_sample_compute_it_once(engine, toys):
    source = toys.RandomAccess(numbered, outputs=("x", "y"))
    reader = read_after(engine, source)

    assert reader._get_previous_item(0, "x", 2) == (0, 2)
    assert reader._get_previous_item(0, "y", 2) == -2
    assert reader._get_previous_item(0, "x", 2) == (0, 2)
    assert source.calls_of("item") == [(0, 2, "x")]


def test_the_same_object_is_given_twice(engine, toys):
    reader = read_after(engine, toys.RandomAccess(lambda *_: {"x": object()}))
    assert reader._get_previous_item(0, "x", 0) is reader._get_previous_item(0, "x", 0)


def test_one_item_is_remembered_and_no_more(engine, toys):
    source = toys.RandomAccess(numbered, outputs=("x", "y"))
    reader = read_after(engine, source)

    for index in (0, 1, 1, 0):
        assert reader._get_previous_item(0, "x", index) == (0, index)
    assert [index for _, index, _ in source.calls_of("item")] == [0, 1, 0]


def test_another_variation_is_another_item(engine, toys):
    source = toys.RandomAccess(numbered, outputs=("x", "y"))
    reader = read_after(engine, source)

    assert [reader._get_previous_item(variation, "x", 1) for variation in (0, 5, 5, 0)] == [
        (0, 1),
        (5, 1),
        (5, 1),
        (0, 1),
    ]
    assert [variation for variation, _, _ in source.calls_of("item")] == [0, 5, 0]


@pytest.mark.parametrize("kind", ["RandomAccess", "SingleVariation"])
def test_a_name_that_a_partial_item_lacks_is_added_to_it(engine, toys, kind):
    source = getattr(toys, kind)(lambda module, *request: {request[-1]: request}, outputs=("x", "y"))
    reader = read_after(engine, source)

    first = [reader._get_previous_item(0, name, 3) for name in ("x", "y")]
    again = [reader._get_previous_item(0, name, 3) for name in ("x", "y")]

    assert again == first
    assert [call[-1] for call in source.calls_of("item")] == ["x", "y"]


def test_a_partial_item_of_another_sample_is_not_added_to(engine, toys):
    source = toys.RandomAccess(only_requested, outputs=("x", "y"))
    reader = read_after(engine, source)

    reader._get_previous_item(0, "x", 0)
    reader._get_previous_item(0, "y", 1)
    assert reader._get_previous_item(0, "x", 1) == ("x", 0, 1)


def test_each_thread_remembers_its_own_item(engine, toys):
    source = toys.RandomAccess(numbered, outputs=("x", "y"))
    reader = read_after(engine, source)

    assert reader._get_previous_item(0, "x", 0) == (0, 0)
    assert in_other_thread(reader._get_previous_item, 0, "x", 1) == (0, 1)
    assert in_other_thread(reader._get_previous_item, 0, "x", 0) == (0, 0)
    assert reader._get_previous_item(0, "y", 0) == 0
    assert [index for _, index, _ in source.calls_of("item")] == [0, 1, 0]


def test_threads_that_compute_at_the_same_time_do_not_mix_their_items(engine, toys):
    meeting = threading.Barrier(4, timeout=30)

    def wait_for_all(module, variation, index, name):
        meeting.wait()
        return {"x": index, "y": -index}

    reader = read_after(engine, toys.RandomAccess(wait_for_all, outputs=("x", "y")))

    def read_both(index):
        return reader._get_previous_item(0, "x", index), reader._get_previous_item(0, "y", index)

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(read_both, range(4))) == [(index, -index) for index in range(4)]


def test_forgetting_reaches_every_thread(engine, toys):
    source = toys.RandomAccess(numbered, outputs=("x", "y"))
    reader = read_after(engine, source)

    with ThreadPoolExecutor(1) as other:

        def read_in_both():
            reader._get_previous_item(0, "x", 0)
            other.submit(reader._get_previous_item, 0, "x", 0).result(timeout=30)

        read_in_both()
        read_in_both()
        assert len(source.calls_of("item")) == 2
        source.clear_item_cache()
        read_in_both()
        assert len(source.calls_of("item")) == 4


def test_a_module_without_a_value_is_passed_over(engine, toys):
    first = toys.RandomAccess(lambda module, variation, index, name: {"x": f"first {index}"})
    second = toys.SingleVariation(lambda module, index, name: {"x": f"second {index}" if index > 0 else None})
    third = toys.RandomAccess(lambda module, variation, index, name: {"x": f"third {index}" if index > 1 else None})
    reader = read_after(engine, first, second, third)

    for _ in range(2):  # the second time, each None is remembered
        assert [reader._get_previous_item(0, "x", index) for index in range(3)] == ["first 0", "second 1", "third 2"]


def test_a_remembered_none_is_passed_over_too(engine, toys):
    first = toys.RandomAccess(lambda *_: {"x": "first"})
    second = toys.RandomAccess(lambda *_: {"x": None})
    reader = read_after(engine, first, second)

    assert [reader._get_previous_item(0, "x", 0) for _ in range(3)] == ["first"] * 3
    assert len(second.calls_of("item")) == 1


@pytest.mark.parametrize("falsy", [0, "", False, [], {}, 0.0])
def test_only_none_is_passed_over(engine, toys, falsy):
    reader = read_after(
        engine, toys.RandomAccess(lambda *_: {"x": "before"}), toys.RandomAccess(lambda *_: {"x": falsy})
    )
    assert reader._get_previous_item(0, "x", 0) == falsy


def test_none_is_what_nobody_has(engine, toys):
    reader = read_after(engine, toys.RandomAccess(lambda *_: {"x": None}))
    assert reader._get_previous_item(0, "x", 0) is None
    assert reader._get_previous_item(0, "unheard of", 0) is None


def test_a_dotted_name_reads_into_nested_dictionaries(engine, toys):
    concept = {"image": {"x": 7, "deep": {"er": [1]}}, "name": "cat"}
    reader = read_after(engine, toys.RandomAccess(lambda *_: {"concept": concept}, outputs=("concept",)))

    assert reader._get_previous_item(0, "concept.image.x", 0) == 7
    assert reader._get_previous_item(0, "concept.image.deep.er", 0) == [1]
    assert reader._get_previous_item(0, "concept.name", 0) == "cat"
    assert reader._get_previous_item(0, "concept", 0) is concept


@pytest.mark.parametrize("name", ["concept.no", "concept.no.x", "concept.image.no", "concept.image.no.further"])
def test_a_dotted_name_that_leads_nowhere_is_none(engine, toys, name):
    reader = read_after(engine, toys.RandomAccess(lambda *_: {"concept": {"image": {"x": 7}}}, outputs=("concept",)))
    assert reader._get_previous_item(0, name, 0) is None


def test_a_nested_key_does_not_fall_through_to_an_earlier_module(engine, toys):
    first = toys.RandomAccess(lambda *_: {"concept": {"x": 1}}, outputs=("concept",))
    second = toys.RandomAccess(lambda *_: {"concept": {"y": 2}}, outputs=("concept",))
    assert read_after(engine, first, second)._get_previous_item(0, "concept.x", 0) is None


@pytest.mark.parametrize("concept", [None, {"image": None}])
def test_reading_into_none_is_an_error(engine, toys, concept):
    reader = read_after(engine, toys.RandomAccess(lambda *_: {"concept": concept}, outputs=("concept",)))
    with pytest.raises(TypeError):
        reader._get_previous_item(0, "concept.image.x", 0)


@pytest.mark.parametrize("kind", ["RandomAccess", "SingleVariation", "Serial"])
def test_after_an_error_the_next_attempt_is_right(engine, toys, kind):
    failures = iter([True, False])

    def fail_once(module, *request):
        if next(failures):
            raise OSError("the disk hiccups")
        return {"x": "right", "y": "too"}

    source = getattr(toys, kind)(fail_once, outputs=("x", "y"))
    reader = read_after(engine, source)

    with pytest.raises(OSError, match="hiccups"):
        reader._get_previous_item(0, "x", 0)
    assert reader._get_previous_item(0, "x", 0) == "right"
    assert reader._get_previous_item(0, "y", 0) == "too"
    assert len(source.calls_of("item")) == 2


def test_an_error_leaves_the_item_before_it_remembered(engine, toys):
    def fail_at_one(module, variation, index, name):
        if index == 1:
            raise OSError("unreadable")
        return numbered(module, variation, index, name)

    source = toys.RandomAccess(fail_at_one, outputs=("x", "y"))
    reader = read_after(engine, source)

    assert reader._get_previous_item(0, "x", 0) == (0, 0)
    with pytest.raises(OSError):
        reader._get_previous_item(0, "x", 1)
    assert reader._get_previous_item(0, "y", 0) == 0
    assert len(source.calls_of("item")) == 2
    with pytest.raises(OSError):
        reader._get_previous_item(0, "y", 1)


def test_an_error_while_adding_a_name_keeps_what_was_there(engine, toys):
    def fail_for_y(module, variation, index, name):
        if name == "y":
            raise OSError("no y")
        return {"x": index}

    source = toys.RandomAccess(fail_for_y, outputs=("x", "y"))
    reader = read_after(engine, source)

    assert reader._get_previous_item(0, "x", 1) == 1
    with pytest.raises(OSError):
        reader._get_previous_item(0, "y", 1)
    assert reader._get_previous_item(0, "x", 1) == 1
    assert len(source.calls_of("item")) == 2


def test_an_error_on_the_way_keeps_the_items_upstream_of_it(engine, toys):
    source = toys.RandomAccess(numbered, outputs=("x", "y"))
    failures = iter([True, False])

    def fail_after_reading(module, variation, index, name):
        x = module._get_previous_item(variation, "x", index)
        if next(failures):
            raise OSError("after reading")
        return {"z": x}

    reader = read_after(engine, source, toys.RandomAccess(fail_after_reading, outputs=("z",)))

    with pytest.raises(OSError):
        reader._get_previous_item(0, "z", 2)
    assert reader._get_previous_item(0, "z", 2) == (0, 2)
    assert len(source.calls_of("item")) == 1


def test_an_item_without_the_name_it_promised_is_an_error(engine, toys):
    source = toys.RandomAccess(lambda *_: {"other": 1}, outputs=("x",))
    reader = read_after(engine, source)
    for _ in range(2):
        with pytest.raises(KeyError):
            reader._get_previous_item(0, "x", 0)


def test_a_serial_item_without_the_name_it_promised_is_an_error_and_moves_on(engine, toys):
    source = toys.Serial(lambda module: {"y": module.current_index}, outputs=("x", "y"))
    reader = read_after(engine, source)
    with pytest.raises(KeyError):
        reader._get_previous_item(0, "x", 0)
    assert reader._get_previous_item(0, "y", 0) == 0
    assert reader._get_previous_item(0, "y", 1) == 1
    assert source.calls_of("item") == [(0,), (1,)]


def test_a_serial_module_is_never_asked_twice_for_one_place(engine, toys):
    source = toys.Serial(lambda module: {"y": module.current_index}, outputs=("x", "y"))
    reader = read_after(engine, source)
    assert reader._get_previous_item(0, "y", 0) == 0
    with pytest.raises((KeyError, TypeError)):
        reader._get_previous_item(0, "x", 0)
    assert source.calls_of("item") == [(0,)]


@pytest.mark.parametrize("kind", ["RandomAccess", "SingleVariation", "Serial"])
def test_none_in_place_of_an_item_is_an_error(engine, toys, kind):
    reader = read_after(engine, getattr(toys, kind)(lambda *_: None))
    with pytest.raises(TypeError):
        reader._get_previous_item(0, "x", 0)
