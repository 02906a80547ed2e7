"""What a check says of one field of a configuration, and what to write there instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Correction:
    """A value that is certain enough to be written without asking.

    Attributes
    ----------
    field:
        Its dotted name: ``frames``, ``transformer.train``, ``concepts.0.path``.
    value:
        In JSON types.
    """

    field: str
    value: Any


@dataclass(frozen=True, slots=True)
class ConfigFinding:
    """Something about a configuration that stops a training, or that its user should know.

    Attributes
    ----------
    severity:
        An error stops, a warning does not.
    field:
        Its dotted name: ``frames``, ``concepts.0.path``.
    what:
        What is wrong, in one sentence.
    why:
        What would come of it.
    fix:
        What to do.
    correction:
        None where only the user can know.
    rule:
        The name in `rules.RULES` of what found it.
    """

    severity: Severity
    field: str
    what: str
    why: str
    fix: str
    correction: Correction | None = None
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.what}: {self.why} ({self.fix})"
