"""Whether a run goes on from a checkpoint, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wan_fixes.hosts.standalone.checkpoint import Checkpoints, TrainingState
from wan_fixes.hosts.standalone.preset import Preset

# What a preset may change without changing what is trained.
_FREE = {
    "path",
    "workspace_dir",
    "cache_dir",
    "output_model_destination",
    "output_dtype",
    "output_model_format",
    "train_device",
    "dataloader_threads",
    "gradient_checkpointing",
    "backup_after",
    "backup_after_unit",
    "save_every",
    "save_every_unit",
    "save_filename_prefix",
    "samples",
    "report",
}


@dataclass(slots=True)
class StartingPoint:
    """Where a run begins.

    Attributes
    ----------
    state:
        What to go on from; None: from the start.
    message:
        In words, for the user; empty when there is nothing to say.
    warnings:
        Damaged checkpoints that were passed over.
    """

    state: TrainingState | None = None
    path: Path | None = None
    message: str = ""
    warnings: list[str] = field(default_factory=list)


def training_fingerprint(preset: Preset) -> dict[str, Any]:
    """The settings that decide what is trained, as JSON values."""
    values = {name: value for name, value in preset.to_dict().items() if name not in _FREE}
    values["concepts"] = [{**concept, "name": ""} for concept in values["concepts"]]
    return values


def find_starting_point(preset: Preset, checkpoints: Checkpoints, resume: Literal["auto", "never"]) -> StartingPoint:
    """Go on from the newest checkpoint if its run was not finished and had the same settings; else from the start."""
    if resume == "never":
        return StartingPoint()
    found = checkpoints.newest()
    warnings = [str(error) for error in checkpoints.damaged]
    if found is None:
        return StartingPoint(warnings=warnings)
    path, state = found
    step = state.progress.global_step
    if state.finished:
        message = f"the last run was finished at step {step}: a new one begins"
        return StartingPoint(message=message, warnings=warnings)
    changed = _differences(state.fingerprint, training_fingerprint(preset))
    if changed:
        message = (
            f"the run that was interrupted at step {step} had other settings ({', '.join(changed)}): a new one begins"
        )
        return StartingPoint(message=message, warnings=warnings)
    return StartingPoint(state, path, f"going on at step {step}, from {path.name}", warnings)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
