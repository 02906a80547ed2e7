"""Where our engine is deliberately better than MGDS: clear errors, and caches that an error cannot spoil."""

from __future__ import annotations

import pytest

from wan_fixes.errors import CriticalError

from .toys import build, load_engine

ENGINE = load_engine("standalone")
TOYS = ENGINE.toys


def read_after(*modules):
    reader = TOYS.Reader()
    build(ENGINE, *modules, reader).start_next_epoch()
    return reader


@pytest.mark.parametrize("kind", ["RandomAccess", "SingleVariation", "Serial"])
def test_none_in_place_of_an_item_is_not_remembered(kind):
    answers = iter([None, {"x": 1}])
    reader = read_after(getattr(TOYS, kind)(lambda *_: next(answers)))

    with pytest.raises(TypeError, match="returned None as its item 0 when 'x' was requested"):
        reader._get_previous_item(0, "x", 0)
    assert reader._get_previous_item(0, "x", 0) == 1


def test_an_item_that_lacks_a_promised_name_is_named():
    reader = read_after(TOYS.RandomAccess(lambda *_: {"other": 1}))
    with pytest.raises(KeyError, match=r"RandomAccess.*'x'.*item 2 lacks it"):
        reader._get_previous_item(0, "x", 2)


def test_reading_into_none_names_what_was_requested():
    reader = read_after(TOYS.RandomAccess(lambda *_: {"x": None}))
    with pytest.raises(TypeError, match=r"x\.a\.b was requested .* to look up 'a' in"):
        reader._get_previous_item(0, "x.a.b", 0)


def test_a_wrong_order_of_modules_stops_the_run():
    serial = TOYS.Serial(lambda module: {"x": 0})
    reader = read_after(serial)
    with pytest.raises(CriticalError, match="wrong index requested") as caught:
        reader._get_previous_item(0, "x", 2)
    assert caught.value.module == "Serial"
    assert "item 2" in caught.value.reason
    assert caught.value.fix
    with pytest.raises(CriticalError, match="wrong variation requested"):
        reader._get_previous_item(1, "x", 0)


def test_a_pipeline_without_an_end_says_so():
    pipeline = build(ENGINE, TOYS.RandomAccess(lambda *_: {"x": 1}))
    pipeline.start_next_epoch()
    with pytest.raises(AttributeError, match="no OutputPipelineModule"):
        next(pipeline)


def test_a_context_that_cannot_be_entered_leaves_the_ones_before_it():
    left = []

    class Context:
        def __init__(self, broken):
            self.broken = broken

        def __enter__(self):
            if self.broken:
                raise RuntimeError("cannot enter")

        def __exit__(self, *error):
            left.append(self)

    good = Context(broken=False)
    with pytest.raises(RuntimeError, match="cannot enter"):
        TOYS.Reader()._all_contexts([good, Context(broken=True)])
    assert left == [good]


class Cache(ENGINE.DiskCache):
    """The abstract parts filled in, to look at the rest."""

    def length(self):
        return 0

    def get_item(self, index, requested_name=None):
        return {}


def test_the_disk_cache_is_only_a_base():
    with pytest.raises(TypeError, match="abstract"):
        ENGINE.DiskCache("cache")


def test_the_disk_cache_reads_all_names_that_it_is_given():
    cache = Cache(
        "cache",
        split_names=["latent"],
        aggregate_names=["crop"],
        variations_in_name="concept.variations",
        balancing_in_name="concept.balancing",
        balancing_strategy_in_name="concept.strategy",
        variations_group_in_name=["concept.path", "concept.seed"],
        group_enabled_in_name="concept.enabled",
    )
    assert cache.get_inputs() == [
        "latent",
        "crop",
        "concept.variations",
        "concept.balancing",
        "concept.strategy",
        "concept.path",
        "concept.seed",
        "concept.enabled",
    ]
    assert Cache("cache", split_names=["latent"]).get_inputs() == ["latent"]
