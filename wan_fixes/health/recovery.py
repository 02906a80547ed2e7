"""Decides what to do about errors: how grave, skip or retry, which module to leave alone, what to change."""

from __future__ import annotations

import logging
import os
import random as random_module
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

from wan_fixes.health.breaker import CircuitBreaker
from wan_fixes.health.diagnosis import (
    FALLBACK_KINDS,
    ITEM_KINDS,
    MEMORY_KINDS,
    TRANSIENT_KINDS,
    describe,
    error_type,
    failure_kind,
    is_transient,
)
from wan_fixes.health.retry import backoff_seconds
from wan_fixes.health.taxonomy import ErrorType, FailurePattern, FailureRecord, RecoveryPolicy, RecoveryStrategy
from wan_fixes.health.text import plain
from wan_fixes.settings import Settings

_NEARLY_ALL = 0.9  # a folder or suffix that holds this share of a pattern's items explains it
_EXAMPLES = 3

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


@dataclass(slots=True)
class _Group:
    """The failures of one module and kind."""

    count: int = 0
    folders: Counter[str] = field(default_factory=Counter)
    suffixes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


class ErrorRecoveryManager:
    """One per run, shared by all modules and threads.

    Parameters
    ----------
    settings:
        Thresholds, attempts and waits.
    clock, sleep, random:
        Seconds on a steady clock, a pause in seconds, and the source of jitter.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: random_module.Random | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._clock = clock
        self._sleep = sleep
        self._random = random or random_module.Random()
        self._policy = RecoveryPolicy(retry_attempts=self._settings.retry_attempts)
        self._breakers: dict[str, CircuitBreaker] = {}
        self._calls: Counter[str] = Counter()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._acted_on: dict[tuple[str, str], int] = {}
        self._retries = 0
        self._seconds_waited = 0.0
        self._lock = threading.RLock()

    @property
    def policy(self) -> RecoveryPolicy:
        """What the pipeline may do at the moment: loader threads, disabled modules, retries."""
        with self._lock:
            return self._policy

    @property
    def retries(self) -> int:
        """How often `run` has tried again."""
        with self._lock:
            return self._retries

    @property
    def seconds_waited(self) -> float:
        """Seconds that `run` has spent waiting before trying again."""
        with self._lock:
            return self._seconds_waited

    def classify_error(self, error: BaseException, context: Mapping[str, Any] | None = None) -> ErrorType:
        """How grave `error` is; `context` as in `wan_fixes.health.diagnosis.failure_kind`."""
        return error_type(error, context)

    def select_recovery_strategy(
        self,
        error_type: ErrorType,
        error: BaseException | None = None,
        *,
        module: str = "",
        failure_count: int = 0,
    ) -> RecoveryStrategy:
        """What to do about an error of this type.

        With the error itself at hand, a transient one is retried and a question of format or metadata falls back,
        until retries are used up; a module whose breaker is open is left alone.
        """
        if error_type is ErrorType.CRITICAL:
            return RecoveryStrategy.STOP
        kind = failure_kind(error) if error is not None else ""
        if error_type is ErrorType.WARNING:
            return RecoveryStrategy.FALLBACK if kind in FALLBACK_KINDS else RecoveryStrategy.CONTINUE
        if module and self.breaker(module).state == "open":
            return RecoveryStrategy.CIRCUIT_BREAK
        if error is not None and is_transient(error) and self.should_retry_operation(module, failure_count):
            return RecoveryStrategy.RETRY
        return RecoveryStrategy.FALLBACK if kind in FALLBACK_KINDS else RecoveryStrategy.SKIP

    def should_retry_operation(self, operation: str, failure_count: int) -> bool:
        """Whether to try `operation` again after `failure_count` retries have failed already."""
        policy = self.policy
        return failure_count < policy.retry_attempts and operation not in policy.disabled_modules

    def run(
        self,
        operation: str,
        function: Callable[Arguments, Value],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Value:
        """Call `function`; after a transient failure wait and try again, as often as the policy allows.

        Raises what the last call raised. Outcomes are not recorded: the caller knows module and item.
        """
        retries = 0
        while True:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not is_transient(error) or not self.should_retry_operation(operation, retries):
                    raise
                with self._lock:  # random.Random is shared
                    wait = backoff_seconds(retries, self._settings.retry_base_seconds, self._random)
                    self._retries += 1
                    self._seconds_waited += wait
                cause = describe(error, operation).cause
                logger.info("%s: trying again in %.1f s: %s", plain(operation), wait, plain(cause))
            self._sleep(wait)
            retries += 1

    def breaker(self, module: str) -> CircuitBreaker:
        """The circuit breaker of `module`; always the same object for a name."""
        with self._lock:
            if module not in self._breakers:
                self._breakers[module] = CircuitBreaker(
                    self._settings.breaker_threshold,
                    self._settings.breaker_min_calls,
                    self._settings.breaker_cooldown_seconds,
                    self._clock,
                )
            return self._breakers[module]

    def breaker_states(self) -> dict[str, str]:
        """Of each module that was called: "closed", "open" or "half_open"."""
        with self._lock:
            breakers = dict(self._breakers)
        return {module: breaker.state for module, breaker in sorted(breakers.items())}

    def record(
        self,
        module: str,
        error: BaseException | None = None,
        *,
        item: str = "",
        context: Mapping[str, Any] | None = None,
    ) -> FailureRecord | None:
        """Note the outcome of one call of `module`: an error, or None for success.

        Feeds the breaker and the patterns. Returns the record of a failure, for the run database. A warning is
        recorded, but the breaker takes it as a success.
        """
        breaker = self.breaker(module)
        record = None if error is None else describe(error, module, item, context)
        with self._lock:
            self._calls[module] += 1
            if record is not None:
                self._add(record)
        if record is None or record.error_type is ErrorType.WARNING:
            opened = breaker.record_success()
        else:
            opened = breaker.record_failure()
        if opened:
            logger.warning(
                "%s fails too often and is left alone for %g s%s",
                plain(module),
                self._settings.breaker_cooldown_seconds,
                f"; the last failure: {plain(record.cause)}" if record is not None else "",
            )
        return record

    def failure_patterns(self) -> list[FailurePattern]:
        """What the failures so far have in common, the most frequent first."""
        with self._lock:
            patterns = [
                FailurePattern(
                    module=module,
                    kind=kind,
                    count=group.count,
                    rate=group.count / self._calls[module],
                    folder=_dominant(group.folders, group.count),
                    suffix=_dominant(group.suffixes, group.count),
                    examples=tuple(group.examples),
                )
                for (module, kind), group in self._groups.items()
            ]
        return sorted(patterns, key=lambda pattern: (-pattern.count, pattern.module, pattern.kind))

    def reconfigure_pipeline(self, failure_patterns: Iterable[FailurePattern]) -> list[str]:
        """Change `policy` to suit the patterns; returns what was changed, in words, and nothing when nothing was.

        Memory that ran out halves the loader threads. Transient failures that outnumber successes are retried once
        only, since waiting did not help. A module that fails in nearly every call, whatever the item, is disabled:
        its breaker stays open.
        """
        changes = []
        with self._lock:
            for pattern in failure_patterns:
                key = (pattern.module, pattern.kind)
                if pattern.count <= self._acted_on.get(key, 0):
                    continue  # nothing new: asking twice must not halve the threads twice
                policy, change = _adapted(self._policy, pattern, self._settings)
                if change:
                    self._acted_on[key] = pattern.count
                    self._policy = policy
                    changes.append(change)
                    if pattern.module in policy.disabled_modules:
                        self.breaker(pattern.module).disable()
        for change in changes:
            logger.warning("%s", plain(change))
        return changes

    def lower_threads(self, most: int) -> None:
        """Have the policy allow at most `most` loader threads, if it doesn't allow fewer already."""
        with self._lock:
            lowered = min(most, self._policy.max_threads or most)
            self._policy = replace(self._policy, max_threads=lowered)

    def _add(self, record: FailureRecord) -> None:
        group = self._groups.setdefault((record.module, record.kind), _Group())
        group.count += 1
        path = PurePath(record.item)
        group.folders[str(path.parent) if path.parent != path and str(path.parent) != "." else ""] += 1
        group.suffixes[path.suffix.lower()] += 1
        if len(group.examples) < _EXAMPLES and record.item not in group.examples:
            group.examples.append(record.item)


def _dominant(counts: Counter[str], of: int) -> str:
    """The value that nearly all items share, or "" when there is none or only one item."""
    value, count = counts.most_common(1)[0]
    return value if of > 1 and count >= _NEARLY_ALL * of else ""


def _adapted(policy: RecoveryPolicy, pattern: FailurePattern, settings: Settings) -> tuple[RecoveryPolicy, str]:
    """The policy after `pattern`, and the sentence about it; "" when nothing changes."""
    often = pattern.count >= settings.breaker_min_calls and pattern.rate > settings.breaker_threshold
    name = f"{pattern.module}: {pattern.count} times {pattern.kind}"
    if pattern.kind in MEMORY_KINDS:
        threads = policy.max_threads or os.cpu_count() or 1
        if threads > 1:
            lowered = threads // 2
            return replace(policy, max_threads=lowered), f"{name}: at most {lowered} loader threads from now on"
    elif pattern.kind in TRANSIENT_KINDS:
        if often and policy.retry_attempts > 1:
            return replace(policy, retry_attempts=1), f"{name}: waiting does not help, so one retry only from now on"
    elif pattern.kind not in ITEM_KINDS and often and pattern.rate >= _NEARLY_ALL:
        disabled = policy.disabled_modules | {pattern.module}
        if disabled != policy.disabled_modules:
            return replace(policy, disabled_modules=disabled), f"{name}: fails whatever the sample is; disabled"
    return policy, ""
