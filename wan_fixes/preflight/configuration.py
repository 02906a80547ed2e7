"""A configuration as somebody wrote it, read without ever failing: what a field does not hold is None.

It is OneTrainer's, as plain JSON: of a preset, of a saved configuration, or what `TrainConfig.to_dict()` gives. A field
that is missing or null has OneTrainer's default.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.hardware import Hardware
from wan_fixes.preflight.near_paths import expanded, first_place
from wan_fixes.preflight.training_data import TrainingData
from wan_fixes.preflight.values import finite_number, shown
from wan_fixes.settings import Settings
from wan_fixes.wan.variants import VARIANTS, WanVariant

#: What OneTrainer takes where a preset is silent, of the fields that the rules read.
DEFAULTS: Final[Mapping[str, Any]] = {
    "aspect_ratio_bucketing": True,
    "batch_size": 1,
    "cache_dir": "workspace-cache/run",
    "clear_cache_before_training": True,
    "concept_file_name": "training_concepts/concepts.json",
    "dataloader_threads": 2,
    "epochs": 100,
    "frames": "25",
    "gradient_accumulation_steps": 1,
    "latent_caching": True,
    "layer_filter_preset": "full",
    "learning_rate": 3e-6,
    "learning_rate_warmup_steps": 200.0,
    "lora_alpha": 1.0,
    "lora_rank": 16,
    "max_noising_strength": 1.0,
    "min_noising_strength": 0.0,
    "optimizer.optimizer": "ADAMW",
    "output_model_destination": "models/model.safetensors",
    "output_model_format": "SAFETENSORS",
    "peft_type": "LORA",
    "resolution": "512",
    "timestep_distribution": "UNIFORM",
    "timestep_shift": 1.0,
    "training_method": "FINE_TUNE",
    "transformer.include": True,
    "transformer.train": True,
    "transformer_2.include": True,
    "transformer_2.train": True,
    "workspace_dir": "workspace/run",
}


class Configuration:
    """One configuration, and where its relative paths are looked up.

    Parameters
    ----------
    values:
        What it holds, of any types.
    base:
        The working folder of the training.
    beside:
        A folder in which what is read is looked up first: that of the preset, for the standalone host.
    gpu:
        The machine that trains; None where its memory is not to be compared.
    settings:
        The plugin's.
    host_types:
        The names of the model types that the host has; none where that is not known.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        base: Path,
        beside: Path | None = None,
        gpu: Hardware | None = None,
        settings: Settings | None = None,
        host_types: Collection[str] = (),
    ) -> None:
        self.values = values
        self.base = base
        self.beside = beside
        self.gpu = gpu
        self.settings = settings or Settings()
        self.host_types = host_types

    @cached_property
    def variant(self) -> WanVariant | None:
        """The WAN model that is trained; None for any other model type."""
        return VARIANTS.get(self.text("model_type"))

    @property
    def is_of_another_wan(self) -> bool:
        """Whether the host brings a WAN of its own, of which we know nothing, and that is to be trained."""
        name = self.text("model_type")
        return name not in VARIANTS and name.upper().startswith("WAN") and name in self.host_types

    @property
    def is_lora(self) -> bool:
        """Whether an adapter is trained, and not the model itself."""
        return self.value("training_method") == "LORA"

    @cached_property
    def experts(self) -> tuple[str, ...]:
        """The parts of a WAN model that are loaded and trained."""
        count = 0 if self.variant is None else self.variant.experts
        parts = ("transformer", "transformer_2")[:count]
        return tuple(part for part in parts if self.is_on(f"{part}.include") and self.is_on(f"{part}.train"))

    @cached_property
    def data(self) -> TrainingData:
        """Its concepts, and the files in their folders."""
        return TrainingData(self.given("concepts"), self.text("concept_file_name"), self.text("cache_dir"), self)

    @property
    def is_for_onetrainer(self) -> bool:
        """Whether OneTrainer trains it. The standalone host looks beside the preset first, and takes less."""
        return self.beside is None

    @cached_property
    def goes_on_from_backup(self) -> bool:
        """Whether OneTrainer takes up its last backup, which then stands for what the training began with."""
        if not self.is_for_onetrainer or not self.is_on("continue_last_backup"):
            return False
        backups = self.written_to(self.text("workspace_dir")) / "backup"
        try:
            return any(entry.is_dir() for entry in os.scandir(backups))
        except (OSError, ValueError):
            return False

    # What a field holds

    def given(self, field: str) -> Any:
        """What stands there, or None."""
        found: Any = self.values
        for name in field.split("."):
            if isinstance(found, Mapping):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found

    def value(self, field: str) -> Any:
        """What stands there, or the default."""
        found = self.given(field)
        return DEFAULTS.get(field) if found is None else found

    def is_on(self, field: str) -> bool:
        """Whether it is true; what is neither true nor false counts as not set."""
        found = self.value(field)
        return found if isinstance(found, bool) else bool(DEFAULTS.get(field, False))

    def text(self, field: str) -> str:
        """Its text, or its number as one; "" where it is neither."""
        found = self.value(field)
        if isinstance(found, bool) or not isinstance(found, (str, int, float)):
            return ""
        return shown(found) if not isinstance(found, str) else found

    def number(self, field: str) -> float | None:
        """Its finite number, or the text that spells one; None for anything else."""
        return finite_number(self.value(field))

    def whole(self, field: str) -> int | None:
        """Its whole number; None for anything else."""
        number = self.number(field)
        return int(number) if number is not None and number == int(number) else None

    # Where a path leads

    @property
    def read_folders(self) -> tuple[Path, ...]:
        """Where the path of something that is read is looked up, in this order."""
        return (self.base,) if self.beside is None else (self.beside, self.base)

    def read_from(self, text: str) -> Path:
        """The path of something that is read: beside the preset where it is there, else in the working folder."""
        return first_place(text, self.read_folders)

    def written_to(self, text: str) -> Path:
        """The path of something that is written: in the working folder."""
        return self.base / expanded(text)
