"""Follows samples through the modules of a pipeline: what each module read and gave, with shapes and times."""

from __future__ import annotations

import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch

from wan_fixes.health import plain
from wan_fixes.media import FramePlan
from wan_fixes.pipeline.base import (
    RandomAccessPipelineModule,
    SerialPipelineModule,
    SingleVariationRandomAccessPipelineModule,
)
from wan_fixes.pipeline.checks import describe
from wan_fixes.pipeline.upstream import unwrap

logger = logging.getLogger(__name__)

_LONGEST_TEXT: Final = 80  # characters of a text item that a trace repeats
_MOST_PARTS: Final = 6  # parts of a list or dictionary that it names

# What tells which item is asked for, by the kind of module: the arguments of the call, in order.
_ARGUMENTS: Final = (
    (RandomAccessPipelineModule, "get_item", ("variation", "index", "requested_name")),
    (SingleVariationRandomAccessPipelineModule, "get_item", ("index", "requested_name")),
    (SerialPipelineModule, "get_next_item", ()),
)


@dataclass(slots=True)
class TraceRecord:
    """One call of one module; or one item that it read by itself, to fill a cache or to sort, which gives nothing.

    Attributes
    ----------
    at:
        The module's place in the pipeline.
    index, variation:
        Which sample it was asked for.
    number:
        Calls count from 1 as they begin, over all threads.
    asked_by:
        The number of the call that needed it; None where no other did.
    inputs, outputs:
        Type and shape of each item that it read and gave, by name; of one that it read of another sample the name says
        which.
    seconds:
        Spent in the module itself, without those that it asked.
    error:
        Why it gave nothing; "" where it did.
    retried:
        What it had raised before it was called again, or before its guard put something in its place.
    """

    at: int
    module: str
    index: int
    variation: int | None
    number: int = 0
    asked_by: int | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    retried: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        read = ", ".join(f"{name}: {what}" for name, what in self.inputs.items()) or "nothing"
        gave = ", ".join(f"{name}: {what}" for name, what in self.outputs.items())
        return (
            f"{self.module} ({self.at}), sample {self.index}, variation {self.variation}: "
            f"{read} -> {self.error or gave or 'nothing'} in {1000 * self.seconds:.1f} ms"
        )


Sink = Callable[[TraceRecord], None]


def trace_modules(modules: list[Any], sink: Sink) -> None:
    """Have `sink` called after each call of a module, in the thread of the call. It cannot be undone.

    A guard and what it guards count as one, and what the guard refuses is an error of the module; but each item that a
    guard passes over for the next one is a call of its own.
    """
    calls = _Calls(itertools.count(1))
    for at, outer in enumerate(modules):
        inner = unwrap(outer)
        for kind, method, arguments in _ARGUMENTS:
            if isinstance(outer, kind):
                for layer in dict.fromkeys((inner, outer)):
                    place = functools.partial(_place, layer, arguments)
                    setattr(layer, method, _traced(at, inner, getattr(layer, method), place, calls, sink))
                inner._get_previous_item = _noted(at, inner, inner._get_previous_item, calls, sink)
                break


def log_trace(record: TraceRecord) -> None:
    """A sink: one line in the log for each call, whose fields are those of the record."""
    logger.info("%s", plain(record, limit=4000), extra={"trace": asdict(record)})


def describe_item(value: Any) -> str:
    """Type and shape; of what is short the value itself, and of a plan its frames."""
    try:
        return _described(value)
    except Exception:  # noqa: BLE001 - items are anything, and to look at one must not be what fails
        return type(value).__name__


def _described(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]!r}… ({len(value)} characters)"
    if isinstance(value, FramePlan):
        return _described_plan(value)
    if _is_number(value):
        return f"{type(value).__name__} {value}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} of {_some(map(str, value), len(value))}"
    if isinstance(value, (list, tuple)) and value and len(value) <= _MOST_PARTS and all(map(_is_number, value)):
        return f"{type(value).__name__} {value}"
    if isinstance(value, (list, tuple)):
        return f"{describe(value)}: {_some(map(describe_item, value), len(value))}" if value else describe(value)
    if value is None or torch.is_tensor(value):
        return "None" if value is None else describe(value)
    inside = next((part for part in vars(value).items() if torch.is_tensor(part[1])), None)
    return describe(value) + (f" with {inside[0]}: {describe(inside[1])}" if inside else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def _described_plan(plan: FramePlan) -> str:
    if not plan.times:
        return f"plan of no frames, by {plan.decoder}"
    return (
        f"plan of {len(plan.times)} frames, {min(plan.indices)} to {max(plan.indices)}, "
        f"from {plan.times[0]:.2f} s to {plan.times[-1]:.2f} s, by {plan.decoder}"
    )


def _some(parts: Iterator[str], count: int) -> str:
    """The first parts, and how many more there are."""
    named = ", ".join(part[:_LONGEST_TEXT] for part in itertools.islice(parts, _MOST_PARTS))
    return f"{named} and {count - _MOST_PARTS} more" if count > _MOST_PARTS else named or "nothing"


class _Calls(threading.local):
    """The calls that this thread is in, the innermost last."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers  # of all threads
        self.open: list[TraceRecord] = []
        self._seconds_inside = [0.0]

    @contextmanager
    def call(self, record: TraceRecord, sink: Sink) -> Iterator[None]:
        """While in it, the record is that of the innermost call; then it is complete, and goes to `sink`."""
        record.number = next(self._numbers)
        record.asked_by = self.open[-1].number if self.open else None
        self.open.append(record)
        self._seconds_inside.append(0.0)
        started = time.perf_counter()
        try:
            yield
        except StopIteration:  # the end of an epoch
            raise
        except BaseException as error:
            record.error = _described_error(error)
            raise
        finally:
            elapsed = time.perf_counter() - started
            record.seconds = max(0.0, elapsed - self._seconds_inside.pop())
            self._seconds_inside[-1] += elapsed
            self.open.pop()
            _hand_over(record, sink)


def _hand_over(record: TraceRecord, sink: Sink) -> None:
    try:
        sink(record)
    except Exception:
        logger.debug("a trace could not be taken", exc_info=True)


def _described_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _place(module: Any, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, Any]:
    """Which item a module is asked for: index and variation."""
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    index = given.get("index", getattr(module, "current_index", -1))
    return index, given.get("variation", getattr(module, "current_variation", None))


def _traced(
    at: int,
    module: Any,
    call: Callable[..., Any],
    place: Callable[[tuple[Any, ...], dict[str, Any]], tuple[int, Any]],
    calls: _Calls,
    sink: Sink,
) -> Callable[..., Any]:
    @functools.wraps(call)
    def traced(*args: Any, **kwargs: Any) -> Any:
        index, variation = place(args, kwargs)
        if calls.open and (calls.open[-1].at, calls.open[-1].index) == (at, index):
            return _attempted(calls.open[-1], call, args, kwargs)
        record = TraceRecord(at, type(module).__name__, index, variation)
        with calls.call(record, sink):
            item = call(*args, **kwargs)
            described = item.items() if isinstance(item, Mapping) else [("", item)]
            record.outputs = {name: describe_item(value) for name, value in described}
            return item

    return traced


def _attempted(record: TraceRecord, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a guard calls, within the guard's own call."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        record.retried.append(_described_error(error))
        raise


def _noted(at: int, module: Any, read: Callable[..., Any], calls: _Calls, sink: Sink) -> Callable[..., Any]:
    """Notes what is read with the innermost call: some modules read through another one that helps them."""

    @functools.wraps(read)
    def noted(variation: int, name: str, index: int) -> Any:
        if calls.open:
            value = read(variation, name, index)
            _note(calls.open[-1], variation, name, index, value)
            return value
        record = TraceRecord(at, type(module).__name__, index, variation)
        with calls.call(record, sink):
            value = read(variation, name, index)
            _note(record, variation, name, index, value)
            return value

    return noted


def _note(record: TraceRecord, variation: int, name: str, index: int, value: Any) -> None:
    here = index == record.index and record.variation in (None, variation)
    record.inputs[name if here else f"{name} of sample {index}, variation {variation}"] = describe_item(value)
