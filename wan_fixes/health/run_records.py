"""What is read from the run database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

SILENT_SECONDS: Final = 60.0
"""A run whose process has written nothing for so long is silent: it writes every few seconds, whatever it does."""

STATE_PREFIX: Final = "pipeline "
"""The state of a run that holds a pipeline: this, and what it is of ("training", "validation")."""

RunStatus = Literal["running", "finished", "interrupted", "failed"]
SampleStatus = Literal["valid", "skipped", "failed", "warning"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. Times are seconds since 1970."""

    id: int
    kind: str
    """What was run: "train", "check", …"""
    config: dict[str, Any]
    """The configuration it was started with, secrets masked."""
    status: RunStatus
    """A run whose process died without saying so reads as "interrupted"."""
    started: float
    finished: float | None
    last_seen: float
    """When the run's process last wrote anything."""
    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """The verdict on a sample that was left out, or a warning about one."""

    path: str
    status: SampleStatus
    module: str
    reason: str
    fix: str
    kind: str
    time: float


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """How many samples have status, module and kind of failure in common."""

    status: SampleStatus
    module: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened in a run."""

    id: int
    time: float
    kind: str
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step, or in a long run several that followed one another, put together."""

    step: int
    """The number of the (last) step."""
    time: float
    """When it ended, seconds since 1970."""
    loss: float
    """The mean of those that are numbers; NaN where none is."""
    lr: float
    """Of the (last) step."""
    seconds: float
    """How long they took together."""
    count: int = 1
    """How many steps these are."""
    finite: int = 1
    """How many of them have a loss that is a number."""

    def followed_by(self, later: StepRecord) -> StepRecord:
        """Both in one."""
        finite = self.finite + later.finite
        losses = [(step.loss, step.finite) for step in (self, later) if step.finite]
        return StepRecord(
            step=later.step,
            time=later.time,
            loss=sum(loss * count for loss, count in losses) / finite if finite else math.nan,
            lr=later.lr,
            seconds=self.seconds + later.seconds,
            count=self.count + later.count,
            finite=finite,
        )


@dataclass(frozen=True, slots=True)
class GaugeRecord:
    """What was measured at one moment: memory, samples made, and the like, by name."""

    time: float
    values: Mapping[str, float]


def number_or_zero(value: Any) -> float:
    """A recorded value as a finite number; 0 for what is none."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
