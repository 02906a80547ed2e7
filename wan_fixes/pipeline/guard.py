"""The guard around a pipeline module: nothing None, misshapen or not finite gets past it, nor its exceptions."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Collection
from typing import Any

import torch

from wan_fixes.errors import CriticalError, SampleError, UserError
from wan_fixes.health import RecoveryStrategy
from wan_fixes.health.diagnosis import failure_kind
from wan_fixes.pipeline.base import (
    PipelineModule,
    RandomAccessPipelineModule,
    SerialPipelineModule,
    SingleVariationRandomAccessPipelineModule,
)
from wan_fixes.pipeline.checks import describe, problem_at_edge
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.pixels import too_little_memory
from wan_fixes.pipeline.stopwatch import Stopwatch
from wan_fixes.pipeline.upstream import keeps_the_order, producers, sample_path, unwrap

logger = logging.getLogger(__name__)

STRATEGIES = ("skip", "fallback", "stop")


class EnhancedSafePipelineModule(PipelineModule):
    """Wraps any MGDS module and is of its kind, so that the engine treats it as that module.

    Every item that the module makes is checked for None, type and finite values. What fails is tried again when
    the cause may pass, replaced by a fallback value, or skipped with a ``SampleError`` that names module, item and
    sample. Failures of a sample's own (a ``SampleError`` from further up) pass through uncounted. A module
    that fails too often trips its circuit breaker; one that fails `max_failures` times in a row stops the run,
    since the cause is then not the single sample.

    Parameters
    ----------
    wrapped_module:
        The module; it keeps its own index in the pipeline.
    module_name:
        The name in messages and records.
    fallback_strategy:
        ``skip``: leave the sample out; ``fallback``: go on with a neutral value where there is one (never for
        tensors: an invented picture must not be trained on); ``stop``: end the run.
    max_failures:
        How many failures in a row are still taken for single bad samples.
    context:
        What it shares with the other modules of its pipeline; without one it keeps its records to itself.
    optional_names:
        Outputs that may be None.
    expected_types:
        Type of an output by name, checked when given.
    """

    # False for the kind that hands out items in order: none of them could be asked for again later.
    _can_pause = True

    def __new__(cls, wrapped_module: PipelineModule, *_: Any, **__: Any) -> EnhancedSafePipelineModule:
        if cls is EnhancedSafePipelineModule:
            for kind, guard in _GUARDS:
                if isinstance(wrapped_module, kind):
                    return super().__new__(guard)
            raise TypeError(f"{type(wrapped_module).__name__} is no kind of module that a pipeline can run")
        return super().__new__(cls)

    def __init__(
        self,
        wrapped_module: PipelineModule,
        module_name: str,
        fallback_strategy: str = "skip",
        max_failures: int = 10,
        *,
        context: PipelineContext | None = None,
        optional_names: Collection[str] = (),
        expected_types: dict[str, type] | None = None,
    ) -> None:
        if fallback_strategy not in STRATEGIES:
            raise ValueError(f"fallback_strategy must be one of {STRATEGIES}, not {fallback_strategy!r}")
        self.wrapped_module: Any = wrapped_module
        self.module_name = module_name
        self.fallback_strategy = fallback_strategy
        self.max_failures = max_failures
        self.context = PipelineContext.create() if context is None else context
        self.optional_names = set(optional_names)
        self.expected_types = dict(expected_types or {})
        self._failures_in_a_row = 0
        self._failure_lock = threading.Lock()
        super().__init__()

    # What the engine asks of any module

    def init(self, pipeline: Any, base_seed: int, module_index: int, state: Any) -> None:
        super().init(pipeline, base_seed, module_index, state)
        self.wrapped_module.init(pipeline, base_seed, module_index, state)
        self._module_index = module_index
        # The engine asks every module between for each item: with a call less, a start takes a third less time.
        self.get_outputs = self.wrapped_module.get_outputs  # type: ignore[method-assign]
        self._has_samples_index = keeps_the_order(pipeline.modules, module_index + 1)
        if self._has_samples_index:
            self._draw_by_content(pipeline.modules[:module_index])
        # The engine looks for an earlier maker of the same item when a module yields None: then None is an answer.
        self._may_be_none = self.optional_names | {
            name
            for name in self.get_outputs()
            if next(producers(pipeline.modules, module_index, name), None) is not None
        }

    def clear_item_cache(self) -> None:
        super().clear_item_cache()
        self.wrapped_module.clear_item_cache()

    def get_inputs(self) -> list[str]:
        return self.wrapped_module.get_inputs()

    def get_outputs(self) -> list[str]:
        return self.wrapped_module.get_outputs()

    def __getattr__(self, name: str) -> Any:
        # Hosts read attributes of their own modules; dunder and private names are ours alone.
        if name.startswith("_") or name == "wrapped_module":
            raise AttributeError(name)
        return getattr(self.wrapped_module, name)

    # The interface of the seed document

    def validate_item(self, item: Any, expected_type: type) -> bool:
        """True when the item is of the type, not None, and finite."""
        return isinstance(item, expected_type) and problem_at_edge(item) is None

    def handle_none_item(self, item_name: str, index: int) -> Any:
        """The value in place of a None: a fallback where the strategy allows one, else ``SampleError``."""
        return self._recover(item_name, index, "is None")

    def get_fallback_value(self, item_name: str, expected_type: type) -> Any:
        """A neutral value of the type (empty text, zero, an empty container, a zero tensor), or None."""
        if issubclass(expected_type, torch.Tensor):
            return torch.zeros(1)
        if expected_type in (str, int, float, bool, list, tuple, dict):
            return expected_type()
        logger.debug("no fallback for %s of type %s", item_name, expected_type.__name__)
        return None

    def should_skip_sample(self, failure_count: int) -> bool:
        """True while so many failures in a row may still be single bad samples."""
        return self.fallback_strategy != "stop" and failure_count <= self.max_failures

    # Inside

    def _draw_by_content(self, earlier: list[Any]) -> None:
        """Let the module draw for a sample as ours do: stock draws by the sample's place in the list, and by the seed.

        What it draws goes into the cache, where a sample keeps its entry when others come and go.
        """
        kind = type(self.wrapped_module)
        number = sum(type(unwrap(module)) is kind for module in earlier)
        draw_by_place = self.wrapped_module._get_rand

        def draw(variation: int, index: int = -1) -> random.Random:
            path = None if index < 0 else sample_path(self.pipeline.modules, self._module_index, index)
            if path is None or not os.path.exists(path):  # noqa: PTH110 - not there: nothing is cached of it
                return draw_by_place(variation, index)
            return self.context.rng(variation, path, f"{kind.__name__} {number}")

        self.wrapped_module._get_rand = draw

    def _guarded(self, call: Callable[[], dict[str, Any]], index: int, requested_name: str | None) -> dict[str, Any]:
        """Run `call`, check what it made, and recover from what it raised."""
        breaker = self.context.recovery.breaker(self.module_name)
        if self._can_pause and not breaker.allow():
            return self._while_open(index, requested_name)
        watch = Stopwatch()
        try:
            with watch:
                item = self.context.recovery.run(self.module_name, call)
        except (SampleError, UserError, CriticalError, StopIteration):
            breaker.give_back_trial()
            raise
        except Exception as error:  # noqa: BLE001 - the boundary to foreign modules: whatever they raise is recorded
            return self._after_exception(requested_name, index, error)
        if not isinstance(item, dict):
            problem = f"is {describe(item)}, expected a dict of items"
            return {requested_name or "": self._recover(requested_name, index, problem)}
        mended = self._mended(item, index, requested_name)
        if not mended:
            self._succeeded(watch.own_seconds)
        return {**item, **mended} if mended else item

    def _mended(self, item: dict[str, Any], index: int, requested_name: str | None) -> dict[str, Any]:
        """What has to be put in place of bad values; nothing when all are good."""
        mended = {}
        for name in self.get_outputs() if requested_name is None else [requested_name]:
            value = item.get(name)
            if value is None:
                if name not in self._may_be_none and (name in item or requested_name is not None):
                    mended[name] = self.handle_none_item(name, index)
                continue
            expected = self.expected_types.get(name, object)
            if not isinstance(value, expected):
                problem: str | None = f"is {describe(value)}, expected {expected.__name__}"
            else:
                problem = problem_at_edge(value)
            if problem is not None:
                mended[name] = self._recover(name, index, problem, type(value))
        return mended

    def _recover(
        self,
        name: str | None,
        index: int,
        problem: str,
        expected: type | None = None,
        error: Exception | None = None,
    ) -> Any:
        """A fallback value in place of what is bad or could not be made, or ``SampleError``."""
        said = f"'{name}' {problem}" if name else problem
        self._count_failure(error or SampleError(said, module=self.module_name), name or "", index)
        fallback = self._fallback(name, expected)
        if fallback is None:
            failed = self._sample_error(name, index, said)
            failed.context["failed"] = True
            raise failed from error
        reason = f"{self.module_name}: {said}; {fallback!r} is used instead"
        self.context.warn(self._sample(index), reason, module=self.module_name)
        return fallback

    def _fallback(self, name: str | None, expected: type | None = None) -> Any:
        """The neutral value that the strategy allows; None where there is none, and never a tensor."""
        expected = self.expected_types.get(name or "", expected)
        if self.fallback_strategy != "fallback" or expected is None or issubclass(expected, torch.Tensor):
            return None
        return self.get_fallback_value(name or "", expected)

    def _after_exception(self, name: str | None, index: int, error: Exception) -> dict[str, Any]:
        if failure_kind(error) == "memory":  # not the module's fault, and there may be more of it in a moment
            raise too_little_memory(self._sample(index)) from error
        facts = {"module": self.module_name, "item": name, "index": index}
        kind = self.context.recovery.classify_error(error, facts)
        cause = f"{type(error).__name__}: {error}"
        if self.context.recovery.select_recovery_strategy(kind) is RecoveryStrategy.STOP:
            raise CriticalError(
                f"{self.module_name} cannot go on", path=self._sample(index), reason=cause, module=self.module_name
            ) from error
        return {name or "": self._recover(name, index, f"failed: {cause}", error=error)}

    def _while_open(self, index: int, name: str | None) -> dict[str, Any]:
        fallback = self._fallback(name)
        if fallback is not None:
            return {name or "": fallback}
        error = self._sample_error(name, index, "the module failed too often and is switched off for a while")
        error.context["this_epoch_only"] = True  # the sample is not to blame: it comes back with the next epoch
        raise error

    def _count_failure(self, error: Exception, name: str, index: int) -> None:
        self.context.recovery.record(self.module_name, error, item=self._sample(index))
        self.context.metrics.count("module_failures", module=self.module_name)
        with self._failure_lock:
            self._failures_in_a_row += 1
            failures = self._failures_in_a_row
        if not self.should_skip_sample(failures):
            raise CriticalError(
                f"{self.module_name} failed {failures} times in a row",
                path=self._sample(index),
                reason=f"the last time with '{name}': {error}",
                fix="the cause is not a single file: see the reason, and `wan check` for the files",
                module=self.module_name,
            ) from error

    def _succeeded(self, seconds: float) -> None:
        self.context.recovery.record(self.module_name, None)
        self.context.metrics.time(self.module_name, seconds)
        if self._failures_in_a_row:
            with self._failure_lock:
                self._failures_in_a_row = 0

    def _sample_error(self, name: str | None, index: int, reason: str) -> SampleError:
        return SampleError(
            "a sample cannot be prepared",
            path=self._sample(index),
            reason=f"{self.module_name}: {reason}",
            fix="check the file, or take it out of the folder",
            module=self.module_name,
            context={"item": name, "index": index},
        )

    def _sample(self, index: int) -> str:
        """The sample's path where the index tells it, else the index."""
        path = None
        if self._has_samples_index:
            path = sample_path(self.pipeline.modules, self._module_index + 1, index)
        return path or f"sample {index}"


class _GuardedRandomAccess(EnhancedSafePipelineModule, RandomAccessPipelineModule):
    def length(self) -> int:
        return int(self.wrapped_module.length())

    def start(self, variation: int) -> None:
        self.wrapped_module.start(variation)

    def get_meta(self, variation: int, name: str) -> Any:
        return self.wrapped_module.get_meta(variation, name)

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return self._guarded(
            lambda: self.wrapped_module.get_item(variation, index, requested_name), index, requested_name
        )


class _GuardedSingleVariation(EnhancedSafePipelineModule, SingleVariationRandomAccessPipelineModule):
    def length(self) -> int:
        return int(self.wrapped_module.length())

    def start(self, variation: int) -> None:
        self.wrapped_module.current_variation = variation
        self.wrapped_module.start(variation)

    def get_meta(self, name: str) -> Any:
        return self.wrapped_module.get_meta(name)

    def get_item(self, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return self._guarded(lambda: self.wrapped_module.get_item(index, requested_name), index, requested_name)


class _GuardedSerial(EnhancedSafePipelineModule, SerialPipelineModule):
    _can_pause = False

    def approximate_length(self) -> int:
        return int(self.wrapped_module.approximate_length())

    def start(self, variation: int, start_index: int) -> None:
        self._passed_over = 0
        self.wrapped_module.current_variation = variation
        self.wrapped_module.current_index = start_index
        self.wrapped_module.start(variation, start_index)

    def get_meta(self, name: str) -> Any:
        return self.wrapped_module.get_meta(name)

    def has_next(self) -> bool:
        self._place_wrapped()
        return bool(self.wrapped_module.has_next())

    def get_next_item(self) -> dict[str, Any]:
        """The next item that can be used; those that cannot are passed over."""
        for _ in range(max(1, self.approximate_length())):
            self._place_wrapped()
            try:
                return self._guarded(self.wrapped_module.get_next_item, self.wrapped_module.current_index, None)
            except SampleError as error:
                self.context.skip(None, error)
                self._passed_over += 1
                if not self.has_next():
                    raise StopIteration from error
        raise CriticalError(
            f"{self.module_name} cannot go on",
            reason="not one item of its whole epoch can be used, or it stands still after a failure",
            fix="see the samples skipped before",
            module=self.module_name,
        )

    def _place_wrapped(self) -> None:
        """The engine counts the items that it got; the module also counts those that were passed over."""
        self.wrapped_module.current_index = self.current_index + self._passed_over


_GUARDS: tuple[tuple[type, type[EnhancedSafePipelineModule]], ...] = (
    (RandomAccessPipelineModule, _GuardedRandomAccess),
    (SingleVariationRandomAccessPipelineModule, _GuardedSingleVariation),
    (SerialPipelineModule, _GuardedSerial),
)
