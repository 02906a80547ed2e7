"""What is read from the run database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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
    """The verdict on one sample, or a warning about it."""

    path: str
    status: SampleStatus
    module: str
    reason: str
    fix: str
    kind: str
    time: float


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
    """One optimizer step; `seconds` is how long it took."""

    step: int
    time: float
    loss: float
    lr: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ModuleTime:
    """How long one module worked in a run, all threads together."""

    module: str
    seconds: float
    items: int
