"""Random pipelines, and random reading with errors on the way: every engine gives what it must, with the same calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .model import Plan, expected, plans, run
from .toys import available_engines, build, load_engine

STANDALONE = load_engine("standalone")
THREADS = 3


@settings(max_examples=200, deadline=None)
@given(plans())
def test_every_pipeline_gives_the_samples_that_its_plan_says(plan: Plan):
    wanted = expected(plan)
    for engine in available_engines():
        samples, _ = run(engine, plan)
        assert samples == wanted, engine.name


@pytest.mark.host
@settings(max_examples=200, deadline=None)
@given(plans())
def test_both_engines_start_and_ask_modules_equally_often(real, plan: Plan):
    assert run(STANDALONE, plan) == run(real, plan)


@dataclass(frozen=True)
class Reading:
    """One read of one name, in one of several threads."""

    name: str
    variation: int
    index: int
    thread: int

    @property
    def right_answer(self) -> int:
        x = 10 * self.variation + self.index
        y = -self.index
        if self.index % 2:
            x += 1000
        return {"x": x, "y": y, "z": x + y}[self.name]


readings = st.builds(
    Reading,
    name=st.sampled_from("xyz"),
    variation=st.integers(0, 1),
    index=st.integers(0, 2),
    thread=st.integers(0, THREADS - 1),
)


def read_all(engine, plan: list[Reading], failing_calls: set[int], is_partial: bool):
    """What each reading gave (None: an error came through), and every call in order."""
    calls: list[tuple] = []

    def counted(name, function):
        def item(module, variation, index, requested_name):
            calls.append((name, variation, index, requested_name))
            if len(calls) in failing_calls:
                raise OSError(f"call {len(calls)}")
            whole = function(module, variation, index)
            if len(calls) + 1000 in failing_calls:
                raise OSError(f"after call {len(calls)}")
            return {requested_name: whole[requested_name]} if is_partial else whole

        return item

    def previous(module, variation, name, index):
        return module._get_previous_item(variation, name, index)

    source = engine.toys.RandomAccess(
        counted("source", lambda module, variation, index: {"x": 10 * variation + index, "y": -index}),
        outputs=("x", "y"),
    )
    odd = engine.toys.RandomAccess(  # even samples fall through to the source
        counted(
            "odd",
            lambda module, variation, index: {
                "x": previous(module, variation, "x", index) + 1000 if index % 2 else None
            },
        )
    )
    total = engine.toys.RandomAccess(
        counted(
            "sum",
            lambda module, variation, index: {
                "z": previous(module, variation, "x", index) + previous(module, variation, "y", index)
            },
        ),
        outputs=("z",),
    )
    reader = engine.toys.Reader()
    build(engine, source, odd, total, reader).start_next_epoch()

    answers = []
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(THREADS)]
        for reading in plan:
            request = (reading.variation, reading.name, reading.index)
            try:
                answers.append(threads[reading.thread].submit(reader._get_previous_item, *request).result(timeout=30))
            except OSError:
                answers.append(None)
    return answers, calls


failing_calls = st.sets(st.integers(1, 40) | st.integers(1001, 1040), max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(readings, max_size=20), failing_calls, st.booleans())
def test_whatever_failed_before_every_answer_is_right(plan, failing, is_partial):
    for engine in available_engines():
        answers, _ = read_all(engine, plan, failing, is_partial)
        right = [reading.right_answer for reading in plan]
        assert [answer for answer in answers if answer is not None] == [
            value for value, answer in zip(right, answers, strict=True) if answer is not None
        ], engine.name
        assert answers.count(None) <= len(failing)


@pytest.mark.host
@settings(max_examples=200, deadline=None)
@given(st.lists(readings, max_size=20), failing_calls, st.booleans())
def test_both_engines_compute_and_remember_the_same(real, plan, failing, is_partial):
    assert read_all(STANDALONE, plan, failing, is_partial) == read_all(real, plan, failing, is_partial)
