"""What else a module can ask: lengths, meta information, whether there is more, random numbers, contexts."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from .toys import build

KINDS = ["RandomAccess", "SingleVariation", "Serial"]


def toy(toys, kind, **options):
    return getattr(toys, kind)(lambda *_: {"x": 0}, **options)


def read_after(engine, *modules, **options):
    reader = engine.toys.Reader()
    build(engine, *modules, reader, **options).start_next_epoch()
    return reader


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_is_the_nearest_modules(engine, toys, kind):
    reader = read_after(engine, toy(toys, "RandomAccess", length=9), toy(toys, kind, length=3))
    assert reader._get_previous_length("x") == 3
    assert reader._get_previous_length("x.of.something.in.it") == 3
    assert reader._get_previous_length("unheard of") is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_is_asked_once_per_thread_until_forgotten(engine, toys, kind):
    counted = toy(toys, kind, length=5)
    reader = read_after(engine, counted)

    with ThreadPoolExecutor(1) as other:
        for _ in range(3):
            assert reader._get_previous_length("x") == 5
            assert other.submit(reader._get_previous_length, "x").result(timeout=30) == 5
    assert len(counted.calls_of("length")) == 2

    counted.item_count = 6
    assert reader._get_previous_length("x") == 5
    counted.clear_item_cache()
    assert reader._get_previous_length("x") == 6


def test_an_empty_module_has_length_zero_and_says_so_once(engine, toys):
    empty = toy(toys, "RandomAccess", length=0)
    reader = read_after(engine, toy(toys, "RandomAccess", length=9), empty)
    assert [reader._get_previous_length("x") for _ in range(3)] == [0, 0, 0]
    assert len(empty.calls_of("length")) == 1


def test_the_length_is_asked_anew_in_each_epoch(engine, toys):
    growing = toy(toys, "RandomAccess", length=5)
    reader = toys.Reader()
    pipeline = build(engine, growing, reader)
    pipeline.start_next_epoch()
    assert reader._get_previous_length("x") == 5
    growing.item_count = 6
    pipeline.start_next_epoch()
    assert reader._get_previous_length("x") == 6


def test_meta_information_comes_from_the_nearest_module_with_that_exact_name(engine, toys):
    reader = read_after(engine, toy(toys, "SingleVariation"), toy(toys, "RandomAccess"))
    assert reader._get_previous_meta(7, "x") == ("meta", 7, "x")
    assert reader._get_previous_meta(7, "x.y") is None
    assert reader._get_previous_meta(7, "unheard of") is None


@pytest.mark.parametrize("kind", ["SingleVariation", "Serial"])
def test_meta_information_of_another_variation_is_refused(engine, toys, kind):
    reader = read_after(engine, toy(toys, kind))
    assert reader._get_previous_meta(0, "x") == ("meta", "x")
    with pytest.raises(Exception, match="wrong variation requested"):
        reader._get_previous_meta(1, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_has_no_meta_information_unless_it_says_so(engine, kind):
    kinds = {
        "RandomAccess": engine.RandomAccessPipelineModule,
        "SingleVariation": engine.SingleVariationRandomAccessPipelineModule,
        "Serial": engine.SerialPipelineModule,
    }
    base = kinds[kind]
    request = (0, "x") if kind == "RandomAccess" else ("x",)
    assert base.get_meta(object(), *request) is None


@pytest.mark.parametrize("kind", ["RandomAccess", "SingleVariation"])
def test_only_a_serial_module_can_have_no_more(engine, toys, kind):
    reader = read_after(engine, toy(toys, kind, length=0))
    assert reader._has_previous_next("x") is True


@pytest.mark.parametrize("more", [True, False])
def test_whether_there_is_more_is_asked_of_the_nearest_module_with_that_exact_name(engine, toys, more):
    serial = toy(toys, "Serial", more=lambda _: more)
    reader = read_after(engine, toy(toys, "RandomAccess"), serial)
    assert reader._has_previous_next("x") is more
    assert not reader._has_previous_next("x.y")
    assert not reader._has_previous_next("unheard of")
    assert serial._has_previous_next("x") is True


def test_random_numbers_hang_on_seed_place_variation_and_index_alone(engine, toys):
    first, second = toys.Reader(), toys.Reader()
    build(engine, first, second, seed=42)

    for module, place in ((first, 0), (second, 1)):
        for variation in (0, 3):
            assert module._get_rand(variation).random() == Random(hash((42, place, variation, -1))).random()
            for index in (-1, 0, 5):
                draws = [module._get_rand(variation, index).random() for _ in range(2)]
                assert draws == [Random(hash((42, place, variation, index))).random()] * 2


def test_a_module_can_enter_several_contexts_as_one(engine, toys):
    events = []

    @contextlib.contextmanager
    def context(name):
        events.append(f"enter {name}")
        yield
        events.append(f"leave {name}")

    with toys.Reader()._all_contexts([context("a"), context("b")]):
        events.append("inside")
    assert events == ["enter a", "enter b", "inside", "leave b", "leave a"]


def test_collecting_garbage_frees_cycles(engine, toys):
    class Knot:
        pass

    knot = Knot()
    knot.itself = knot
    freed = weakref.ref(knot)
    gc.disable()
    try:
        del knot
        assert freed() is not None
        toys.Reader()._torch_gc()
        assert freed() is None
    finally:
        gc.enable()


def test_the_executor_runs_as_many_at_a_time_as_it_was_told(engine):
    with engine.PipelineState(3).executor as executor:
        meeting = threading.Barrier(3, timeout=30)
        list(executor.map(lambda _: meeting.wait(), range(3)))
    with engine.PipelineState(1).executor as executor:
        assert len(set(executor.map(lambda _: threading.get_ident(), range(20)))) == 1
    with engine.PipelineState().executor as executor:
        assert executor.submit(lambda: 1).result(timeout=30) == 1


def test_every_module_shares_the_state_and_knows_its_pipeline(engine, toys):
    readers = [toys.Reader() for _ in range(3)]
    pipeline = build(engine, *readers)
    assert {id(reader._state) for reader in readers} == {id(readers[0]._state)}
    assert all(reader.pipeline is pipeline for reader in readers)
    assert isinstance(readers[0]._state, engine.PipelineState)
