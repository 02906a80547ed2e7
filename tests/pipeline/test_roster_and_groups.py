"""Which samples an epoch has, in which order: against MGDS's rules, worked out on plain lists."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import SampleError, UserError
from wan_fixes.pipeline import SampleRoster
from wan_fixes.pipeline.groups import GroupPlan, SampleGroup, read_groups


def error(**context):
    return SampleError("broken", context=context)


# The roster


def test_a_sample_is_dropped_once_and_at_once_while_no_order_is_fixed():
    roster = SampleRoster()
    roster.open_epoch(0)
    version = roster.version
    assert roster.drop(3, error())
    assert not roster.drop(3, error())
    assert roster.is_dropped(3) and not roster.is_dropped(2)
    assert roster.version != version


def test_once_the_order_is_fixed_a_dropped_sample_stays_until_the_next_epoch():
    roster = SampleRoster()
    roster.open_epoch(0)
    roster.close_epoch()
    version = roster.version
    assert roster.drop(3, error())
    assert not roster.drop(3, error())
    assert not roster.is_dropped(3)
    assert roster.version == version
    roster.open_epoch(0)  # another sink of the same epoch
    assert not roster.is_dropped(3)
    roster.open_epoch(1)
    assert roster.is_dropped(3)
    assert roster.version != version
    assert list(roster.reasons()) == [3]


def test_a_sample_that_is_not_to_blame_comes_back_with_the_next_epoch():
    roster = SampleRoster()
    roster.open_epoch(0)
    roster.drop(1, error(this_epoch_only=True))
    roster.drop(2, error())
    assert roster.is_dropped(1)
    version = roster.version
    roster.open_epoch(1)
    assert not roster.is_dropped(1) and roster.is_dropped(2)
    assert roster.version != version


def test_of_many_threads_that_drop_one_sample_one_is_told_so():
    roster = SampleRoster()
    roster.open_epoch(0)
    start = threading.Barrier(8)
    firsts = []

    def drop_all():
        start.wait()
        firsts.extend(index for index in range(200) if roster.drop(index, error()))

    threads = [threading.Thread(target=drop_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(firsts) == list(range(200))
    assert roster.version == 200


# Groups

SAMPLES = st.lists(
    st.fixed_dictionaries(
        {
            "group": st.integers(0, 3),
            "enabled": st.booleans(),
            "variations": st.integers(1, 3),
            "balancing": st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.7, 2.0, 5.0]),
            "strategy": st.sampled_from(["REPEATS", "SAMPLES"]),
        }
    ),
    max_size=12,
)


def stock_order(samples, dropped, epoch):
    """(sample, variation) of each output index, by MGDS's rules, with the dropped samples taken out of their groups."""
    members, first = {}, {}
    for index, sample in enumerate(samples):
        if sample["enabled"]:
            first.setdefault(sample["group"], sample)
            members.setdefault(sample["group"], [])
            if index not in dropped:
                members[sample["group"]].append(index)
    order = []
    for group, indices in members.items():
        if not indices:
            continue
        balancing, strategy = first[group]["balancing"], first[group]["strategy"]
        count = int(balancing) if strategy == "SAMPLES" else math.floor(len(indices) * balancing)
        for place in range(epoch * count, (epoch + 1) * count):
            order.append((indices[place % len(indices)], place // len(indices) % first[group]["variations"]))
    return order


def groups_of(samples):
    return read_groups(
        lambda name, index: samples[index][name],
        len(samples),
        variations_name="variations",
        balancing_name="balancing",
        strategy_name="strategy",
        group_names=["group"],
        enabled_name="enabled",
    )


@settings(max_examples=300, deadline=None)
@given(samples=SAMPLES, dropped=st.sets(st.integers(0, 11)), epoch=st.integers(0, 5))
def test_an_epoch_has_the_samples_that_mgds_would_give_it_without_the_dropped_ones(samples, dropped, epoch):
    roster = SampleRoster()
    roster.open_epoch(epoch)
    for index in dropped:
        roster.drop(index, error())
    plan = GroupPlan(groups_of(samples), roster)
    located = [plan.locate(epoch, index) for index in range(len(plan))]
    order = [(at.sample, at.turn % plan.groups[at.group].variations) for at in located]
    assert order == stock_order(samples, dropped, epoch)
    assert set(order) <= set(plan.needed(epoch)), "a sample that the epoch gives was not among those to make"
    for outside in (-1, len(plan)):
        with pytest.raises(IndexError):
            plan.locate(epoch, outside)


def test_without_balancing_all_samples_are_one_group():
    groups = read_groups(
        lambda name, index: 1 / 0,
        3,
        variations_name=None,
        balancing_name=None,
        strategy_name=None,
        group_names=[],
        enabled_name=None,
    )
    assert groups == [SampleGroup(1, 1.0, "REPEATS", [0, 1, 2])]


def test_an_unknown_strategy_is_named():
    sample = {"group": 0, "enabled": True, "variations": 1, "balancing": 1.0, "strategy": "TWICE"}
    with pytest.raises(UserError, match="TWICE"):
        groups_of([sample])


def test_groups_with_values_of_any_kind_are_told_apart():
    """`concept.image` is a dictionary, and a value in it may be of any type."""
    settings_of_image = [{"a": 1, "b": [None]}, {"b": [None], "a": 1}, {"a": 1, "b": [math]}, {"a": 2, "b": [None]}]
    samples = [
        {"group": value, "enabled": True, "variations": 1, "balancing": 1.0, "strategy": "REPEATS"}
        for value in settings_of_image
    ]
    assert [group.indices for group in groups_of(samples)] == [[0, 1], [2], [3]]
