"""Alerts come when they are due, once for each cause, and go when the cause is gone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.health.alerts import Alert, AlertBook, Change, Measured
from wan_fixes.health.memory import MemoryStats
from wan_fixes.settings import Settings

FINE = Measured()


def memory(used: float) -> MemoryStats:
    return MemoryStats(100.0, 200.0, (1 - used) * 10_000, None, 0.0, 10_000.0)


def begun(changes: list[Change]) -> list[Alert]:
    return [change.alert for change in changes if not change.is_over]


@pytest.mark.parametrize(
    ("measured", "kind", "words"),
    [
        (Measured(left_out=30, known=100), "error_rate", "30 of 100 samples are left out (30%)"),
        (Measured(memory=memory(0.97)), "memory", "97% of 9.8 GiB"),
        (Measured(idle_seconds=660, doing="training"), "stall", "nothing was made for 11 minutes (training)"),
        (Measured(counters={"cache_corruptions": 1}), "cache_corruption", "1 cache entries were damaged"),
        (Measured(breakers={"ScaleImage": "open"}), "module_off", "ScaleImage fails too often"),
    ],
)
def test_each_trouble_is_announced_with_what_helps(measured: Measured, kind: str, words: str) -> None:
    book = AlertBook(Settings(), Clock(1_000.0))
    (alert,) = begun(book.look(measured))
    assert (alert.kind, alert.since) == (kind, 1_000.0)
    assert words in alert.message
    assert alert.fix
    assert book.active == (alert,)


@pytest.mark.parametrize(
    "measured",
    [
        FINE,
        Measured(left_out=2, known=2),
        Measured(left_out=20, known=100),
        Measured(memory=memory(0.95)),
        Measured(idle_seconds=600),
        Measured(breakers={"ScaleImage": "closed"}),
        Measured(counters={"cache_hits": 100}),
    ],
)
def test_what_is_within_the_limits_is_no_alert(measured: Measured) -> None:
    assert AlertBook(Settings(), Clock(1_000.0)).look(measured) == []


@pytest.mark.parametrize(
    ("setting", "value", "measured"),
    [
        ("alert_error_rate", 0.5, Measured(left_out=40, known=100)),
        ("memory_limit_fraction", 0.99, Measured(memory=memory(0.98))),
        ("alert_stall_seconds", 0.0, Measured(idle_seconds=1e9)),
        ("alert_corrupt_entries", 5, Measured(counters={"cache_corruptions": 4})),
    ],
)
def test_the_thresholds_are_those_of_the_settings(setting: str, value: Any, measured: Measured) -> None:
    chosen = Settings()
    setattr(chosen, setting, value)
    assert AlertBook(chosen, Clock(1_000.0)).look(measured) == []
    assert AlertBook(Settings(), Clock(1_000.0)).look(measured) != []


def test_an_alert_that_goes_on_is_announced_once_and_its_end_too() -> None:
    book, trouble = AlertBook(Settings(), Clock(1_000.0)), Measured(left_out=30, known=100)
    (first,) = book.look(trouble)
    assert book.look(Measured(left_out=60, known=100)) == []
    assert book.active[0].message.startswith("60 of 100")
    assert book.active[0].since == first.alert.since
    (over,) = book.look(FINE)
    assert over.is_over and over.alert.kind == "error_rate"
    assert book.active == ()


def test_memory_at_the_brink_is_one_alert() -> None:
    book = AlertBook(Settings(), Clock(1_000.0))
    changes = [book.look(Measured(memory=memory(used))) for used in (0.96, 0.94, 0.96, 0.93, 0.96, 0.91)]
    assert [len(change) for change in changes] == [1, 0, 0, 0, 0, 1]


def test_what_comes_and_goes_is_shown_but_told_of_twice_an_hour_at_most() -> None:
    clock = Clock(1_000.0)
    book, trouble = AlertBook(Settings(), clock, clock), Measured(breakers={"ScaleImage": "open"})
    told = []
    for _ in range(60):
        told += book.look(trouble)
        assert book.active
        clock.now += 60
        told += book.look(FINE)
    assert [change.is_over for change in told] == [False, True, False, True]


def test_each_module_is_a_cause_of_its_own() -> None:
    book = AlertBook(Settings(), Clock(1_000.0))
    book.look(Measured(breakers={"A": "open"}))
    (alert,) = begun(book.look(Measured(breakers={"A": "open", "B": "half_open"})))
    assert alert.cause == "B"


@settings(max_examples=200, deadline=None)
@given(
    rounds=st.lists(
        st.tuples(
            st.integers(0, 60),
            st.floats(0, 1),
            st.floats(0, 2_000),
            st.integers(0, 3),
            st.dictionaries(st.sampled_from("AB"), st.sampled_from(["closed", "open", "half_open"])),
            st.floats(0, 300),
        ),
        max_size=40,
    )
)
def test_no_cause_is_announced_again_while_it_is_on_or_soon_after(rounds: list[tuple[Any, ...]]) -> None:
    clock = Clock(1_000.0)
    book = AlertBook(Settings(), clock, clock)
    announced: dict[tuple[str, str], float] = {}
    on: Counter[tuple[str, str]] = Counter()
    for left_out, used, idle, damaged, breakers, wait in rounds:
        clock.now += wait
        measured = Measured(left_out, 100, memory(used), idle, "training", {"cache_corruptions": damaged}, breakers)
        for change in book.look(measured):
            key = (change.alert.kind, change.alert.cause)
            on[key] += -1 if change.is_over else 1
            assert on[key] in (0, 1)  # what is over has begun
            if not change.is_over:
                assert clock.now - announced.get(key, -1e9) >= 1_800.0
                announced[key] = clock.now
        active = {(alert.kind, alert.cause) for alert in book.active}
        assert len(active) == len(book.active)
        expected = {
            ("error_rate", ""): left_out > 20,
            ("stall", "training"): idle > 600,
            ("cache_corruption", ""): damaged >= 1,
        } | {("module_off", name): state != "closed" for name, state in breakers.items()}
        for key, is_due in expected.items():
            assert (key in active) == is_due
        if used > 0.95:
            assert ("memory", "") in active
        if used < 0.91:
            assert ("memory", "") not in active
