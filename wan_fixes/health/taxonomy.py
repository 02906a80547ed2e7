"""The words of the health room: kinds of error, strategies, and the records made of failures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ErrorType(Enum):
    """How grave an error is."""

    CRITICAL = "critical"
    """Stop: the model cannot be loaded, memory or disk is exhausted, the cache is beyond repair."""
    RECOVERABLE = "recoverable"
    """Go on without the sample."""
    WARNING = "warning"
    """Go on; somebody should know."""


class RecoveryStrategy(Enum):
    """What to do about an error."""

    STOP = "stop"
    SKIP = "skip"
    RETRY = "retry"
    FALLBACK = "fallback"
    CIRCUIT_BREAK = "circuit_break"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One failure as it is reported: which module, which item, why. None of the three is ever empty."""

    module: str
    item: str
    cause: str
    kind: str
    error_type: ErrorType
    fix: str = ""


@dataclass(frozen=True, slots=True)
class FailurePattern:
    """Failures of one module that have a kind in common."""

    module: str
    kind: str
    count: int
    rate: float
    """Share of the module's calls that failed so, 0 to 1."""
    folder: str = ""
    """The folder in which nearly all of these items lie, if they do."""
    suffix: str = ""
    """The file suffix that nearly all of these items have, if they do (".avi")."""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """What the pipeline may do at the moment, as `ErrorRecoveryManager.reconfigure_pipeline` left it."""

    retry_attempts: int
    """How often a transient failure is tried again."""
    max_threads: int | None = None
    """Upper bound for loader threads; None leaves the host's number."""
    disabled_modules: frozenset[str] = frozenset()
    """Modules that fail whatever the sample is, and are not tried again in this run."""
