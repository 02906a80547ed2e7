"""What a training run came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class SampleRemark:
    """A clip that was left out, or that something was noted about."""

    path: str
    module: str
    reason: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training run came to.

    Attributes
    ----------
    finished:
        Every epoch was trained; False when ``max_steps`` ended the run earlier.
    first_step, steps:
        Updates of the weights that were done before this run, and that are done now.
    losses:
        The loss of each update of this run.
    skipped_steps:
        Updates and batches left out because their loss or gradient was not finite.
    valid, skipped, failed:
        How many files were trained on, could not be used, and failed unexpectedly.
    cache_hits, cache_misses:
        Cached items (latents and text embeddings) that were there when the run began, and that it had to make.
    seconds:
        How long each phase took: ``loading``, ``caching``, ``training``, ``saving``, ``total``.
    """

    run_id: int
    finished: bool
    first_step: int
    steps: int
    resumed_from: Path | None
    losses: tuple[float, ...]
    skipped_steps: int
    valid: int
    skipped: int
    failed: int
    left_out: tuple[SampleRemark, ...]
    warnings: tuple[SampleRemark, ...]
    cache_hits: int
    cache_misses: int
    lora: Path
    previews: tuple[Path, ...]
    checkpoint: Path
    workspace: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the run leaves behind for its user."""
        return (self.lora, *self.previews, self.checkpoint)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
