"""What the service answers, as dataclasses: they are the schema in `/openapi.json` too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: Of a file or component: the worst of its files counts. UNKNOWN where nobody knows yet which files it has.
FileState = Literal["COMPLETE", "UNVERIFIED", "MISSING", "CORRUPT", "UNKNOWN"]


@dataclass(frozen=True)
class Alive:
    """The service runs."""

    status: Literal["ok"] = "ok"


@dataclass(frozen=True)
class Problem:
    """What went wrong, why, and what helps. `code` stays the same, the texts are for people."""

    code: str
    what: str
    reason: str
    fix: str


@dataclass(frozen=True)
class ProblemReply:
    """An answer that is none; `known` are the names that there are, where a name was wrong."""

    error: Problem
    known: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class UnreadableReply:
    """The disk does not answer in time ("timeout"); or it refuses, or has a forged record ("unreadable")."""

    status: Literal["timeout", "unreadable"]
    error: Problem


@dataclass(frozen=True)
class LastValidation:
    """The last reading in the background: when it ended (seconds since 1970), how long it took, what was found."""

    finished_at: float
    seconds: float
    outcome: str
    wrong: list[str]


@dataclass(frozen=True)
class ModelHealth:
    """A model at a glance.

    Attributes
    ----------
    name:
        ``ID@VERSION#VARIANT``.
    state:
        A `ModelState`.
    bytes_needed:
        To be fetched until it is complete; null where nobody knows yet how large it is.
    bytes_there:
        Of it, on the disk.
    missing, corrupt, unverified:
        Numbers of files: not there or not whole; of another content than they should have; changed since they were
        verified.
    missing_components:
        Components that lack a file.
    verified_at:
        When all digests were right the last time (seconds since 1970); null where they never were.
    last_validation:
        What `--revalidate` found the last time; null where it has not read it.
    """

    name: str
    state: str
    bytes_needed: int | None
    bytes_there: int
    missing: int
    corrupt: int
    unverified: int
    missing_components: list[str]
    verified_at: float | None
    last_validation: LastValidation | None


@dataclass(frozen=True)
class ModelsHealth:
    """All models of the manifest. "degraded" where one is partly there, or spoilt; one that is not there at all is not
    missed.
    """

    status: Literal["ok", "degraded"]
    models: list[ModelHealth]


@dataclass(frozen=True)
class FileHealth:
    """A file: its path below the model's folder, its bytes when it is whole, and its state."""

    path: str
    size: int
    state: FileState


@dataclass(frozen=True)
class ComponentHealth:
    """A folder of a model; "" for the files beside the folders."""

    name: str
    optional: bool
    state: FileState
    bytes: int
    files: list[FileHealth]


@dataclass(frozen=True)
class ModelDetail:
    """A model in full.

    Attributes
    ----------
    health:
        As in the list of all.
    folder:
        Where it is once it is complete.
    revision, source:
        Of what is there, or wanted; "" where nothing is known.
    """

    status: Literal["ok", "degraded"]
    health: ModelHealth
    label: str
    mode: str
    model_type: str
    precision: str
    folder: str
    revision: str
    source: str
    components: list[ComponentHealth]


@dataclass(frozen=True)
class ServedRun:
    """A run: its number, what was run ("train", "cache", …), how it stands, and when it began (seconds since 1970)."""

    id: int
    kind: str
    state: Literal["running", "finished", "interrupted", "failed"]
    started: float


@dataclass(frozen=True)
class AlertReply:
    """Something that goes wrong now.

    Attributes
    ----------
    kind:
        "error_rate", "memory", "stall", "cache_corruption" or "module_off".
    cause:
        What it is about: a module, what the run is doing; "" where there is one of the kind only.
    value, threshold:
        What was measured, and from where on that is an alert.
    since:
        Seconds since 1970.
    """

    kind: str
    cause: str
    message: str
    fix: str
    value: float
    threshold: float
    since: float


@dataclass(frozen=True)
class RunAlerts:
    """The alerts of the latest run. "alert" where one is on, or the run is silent; of a run that is over none is on.

    Attributes
    ----------
    silent:
        Whether it should be running, but its process has given no sign of life for a minute.
    silent_seconds:
        Since that sign; 0 where it is over.
    """

    status: Literal["ok", "alert"]
    run: ServedRun
    silent: bool
    silent_seconds: float
    alerts: list[AlertReply]
