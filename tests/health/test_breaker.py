"""The circuit breaker opens above its threshold, rests, tries once, and closes again."""

from __future__ import annotations

import threading
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.health import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Model:
    """The breaker as one would write it down by hand: a named state, and all outcomes counted anew each time."""

    def __init__(self, threshold: float, min_calls: int, cooldown: float) -> None:
        self.threshold, self.min_calls, self.cooldown = threshold, min_calls, cooldown
        self.mode: Literal["closed", "resting", "trial free", "trial taken"] = "closed"
        self.outcomes: list[str] = []
        self.since = 0.0

    def pass_time(self, now: float) -> None:
        if self.mode in ("resting", "trial taken") and now - self.since >= self.cooldown:
            self.mode = "trial free"

    def allow(self, now: float) -> bool:
        self.pass_time(now)
        if self.mode == "trial free":
            self.mode, self.since = "trial taken", now
            return True
        return self.mode == "closed"

    def finish(self, outcome: str, now: float) -> None:
        self.pass_time(now)
        if self.mode == "closed":
            self.outcomes = [*self.outcomes, outcome][-5 * self.min_calls :]
            failures = self.outcomes.count("failure")
            if len(self.outcomes) >= self.min_calls and failures / len(self.outcomes) > self.threshold:
                self.mode, self.since = "resting", now
        elif self.mode.startswith("trial"):
            if outcome == "success":
                self.mode, self.outcomes = "closed", []
            else:
                self.mode, self.since = "resting", now

    def state(self, now: float) -> str:
        self.pass_time(now)
        return {"closed": "closed", "resting": "open"}.get(self.mode, "half_open")


ACTIONS = st.lists(
    st.one_of(
        st.just(("failure", 0.0)),
        st.just(("failure", 0.0)),
        st.just(("success", 0.0)),
        st.just(("allow", 0.0)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 9.0, 10.0, 25.0])),
    ),
    max_size=120,
)


@settings(max_examples=500, deadline=None)
@given(threshold=st.sampled_from([0.25, 0.5, 0.75]), min_calls=st.integers(1, 8), actions=ACTIONS)
def test_breaker_behaves_like_its_model(threshold: float, min_calls: int, actions: list[tuple[str, float]]) -> None:
    """Feature: wan-training-pipeline-fixes, Property 6: Circuit Breaker Activation. For any sequence of pipeline errors
    exceeding the failure threshold, the breaker opens, and lets the module be tried again after a rest."""
    clock = Clock()
    breaker = CircuitBreaker(threshold, min_calls, 10.0, clock)
    model = Model(threshold, min_calls, 10.0)
    for action, seconds in actions:
        if action == "wait":
            clock.now += seconds
        elif action == "allow":
            assert breaker.allow() == model.allow(clock.now)
        else:
            was_open = model.state(clock.now) == "open"
            opened = breaker.record_success() if action == "success" else breaker.record_failure()
            model.finish(action, clock.now)
            assert opened == (model.state(clock.now) == "open" and not was_open)
        assert breaker.state == model.state(clock.now)


@settings(max_examples=200, deadline=None)
@given(min_calls=st.integers(1, 20), extra=st.integers(0, 40), successes=st.integers(0, 40))
def test_more_failures_than_the_threshold_open_it_and_fewer_do_not(min_calls: int, extra: int, successes: int) -> None:
    """Feature: wan-training-pipeline-fixes, Property 6: Circuit Breaker Activation (the threshold itself)."""
    breaker = CircuitBreaker(0.5, min_calls, 30.0, Clock())
    for _ in range(successes):
        breaker.record_success()
    failures = min(extra, min_calls * 5 - successes)
    opened = False
    for number in range(1, failures + 1):
        breaker.record_failure()
        opened = opened or (number + successes >= min_calls and number > successes)
        assert (breaker.state == "open") == opened


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(0.5, 4, 10.0, clock)
    for _ in range(4):
        breaker.record_failure()
    assert breaker.state == "open"
    return breaker


def test_exactly_half_failures_leave_it_closed() -> None:
    breaker = CircuitBreaker(0.5, 4, 10.0, Clock())
    for _ in range(50):
        breaker.record_success()
        breaker.record_failure()
        assert breaker.state == "closed"


def test_old_successes_do_not_hide_that_everything_fails_now() -> None:
    breaker = CircuitBreaker(0.5, 4, 10.0, Clock())
    for _ in range(100_000):
        breaker.record_success()
    for _ in range(11):
        breaker.record_failure()
    assert breaker.state == "open"


def test_of_many_threads_one_takes_the_trial() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10.0
    start = threading.Barrier(8)
    passed: list[bool] = []

    def ask() -> None:
        start.wait()
        passed.append(breaker.allow())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed.count(True) == 1


def test_a_trial_that_never_answers_does_not_block_for_good() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10.0
    assert breaker.allow()
    assert not breaker.allow()
    clock.now += 10.0
    assert breaker.allow()


def test_once_disabled_it_lets_nothing_through_again() -> None:
    clock = Clock()
    breaker = CircuitBreaker(0.5, 4, 10.0, clock)
    breaker.disable()
    for _ in range(20):
        clock.now += 100.0
        assert breaker.state == "open"
        assert not breaker.allow()
        breaker.record_success()


def test_after_a_good_trial_a_single_failure_does_not_open_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10.0
    assert breaker.allow()
    breaker.record_success()
    breaker.record_failure()
    assert breaker.state == "closed"
