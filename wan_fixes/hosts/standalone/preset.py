"""The preset: what a OneTrainer preset asks for, checked, as one value.

Relative paths: what is read (model, concepts, sample definitions) is looked up beside the preset first, then in the
working folder; a concept's folder also beside the concept file, before both. What is written (workspace, cache, output)
lies in the working folder, as in OneTrainer, so that a preset in a read-only place works and a run finds its own
checkpoints again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_fixes.health import run_database_path
from wan_fixes.hosts.standalone.concepts import Concept
from wan_fixes.hosts.standalone.reading import FieldNote
from wan_fixes.hosts.standalone.samples import SampleDefinition
from wan_fixes.wan.lora_keys import LoraFormat
from wan_fixes.wan.variants import WanVariant, get_variant

DEFAULT_SEED = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """The optimizer and its parameters, with PyTorch's defaults as OneTrainer sets them."""

    name: str = "ADAMW"
    """ADAMW, ADAM or SGD."""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A training run, as read from a preset. Names are OneTrainer's where it has one.

    Attributes
    ----------
    path:
        The preset's file.
    base_model_name:
        Folder of the model in diffusers' layout, absolute.
    model_name:
        The model of the manifest whose folder that is, and which is fetched before it is loaded; "" for a folder.
    resolution:
        ``512``: buckets of about 512 x 512 pixels; ``512, 768``: one of them by chance; ``832x480``: width and height.
    frames:
        Frames of a clip, 4n + 1.
    learning_rate_warmup_steps:
        Above 1: batches; up to 1: a share of the run.
    train_device:
        ``cuda``, ``cpu``, or None: CUDA where there is one.
    train_dtype, transformer_weight_dtype, text_encoder_weight_dtype, vae_weight_dtype, lora_weight_dtype, output_dtype:
        ``FLOAT_32``, ``BFLOAT_16`` or ``FLOAT_16`` (the last not for training).
    output_model_format:
        By whose names the LoRA's weights are written.
    layer_filter:
        Parts of module names, or regular expressions; () means every linear layer of the transformer's blocks.
    caption_dropout:
        Probability that a clip is trained with the empty prompt.
    backup_after, backup_after_unit:
        How often a checkpoint is written. Units: EPOCH, STEP (batches), SECOND, MINUTE, HOUR, NEVER, ALWAYS.
    save_every, save_every_unit:
        How often a LoRA is written to the workspace, in the same units.
    seed:
        Not OneTrainer's (it has none): everything random hangs on it.
    report:
        Fields that are ignored, unknown, or done in another way.
    """

    path: Path
    model_type: str
    base_model_name: Path
    model_name: str
    workspace_dir: Path
    cache_dir: Path
    output_model_destination: Path
    output_dtype: str
    concepts: tuple[Concept, ...]
    resolution: str
    frames: int
    aspect_ratio_bucketing: bool
    latent_caching: bool
    batch_size: int
    gradient_accumulation_steps: int
    epochs: int
    learning_rate: float
    learning_rate_scheduler: str
    learning_rate_warmup_steps: float
    learning_rate_min_factor: float
    optimizer: OptimizerSettings
    clip_grad_norm: float | None
    train_device: str | None
    train_dtype: str
    transformer_weight_dtype: str
    text_encoder_weight_dtype: str
    vae_weight_dtype: str
    gradient_checkpointing: bool
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_weight_dtype: str
    layer_filter: tuple[str, ...]
    layer_filter_regex: bool
    timestep_distribution: str
    timestep_shift: float
    noising_weight: float
    noising_bias: float
    min_noising_strength: float
    max_noising_strength: float
    caption_dropout: float
    dataloader_threads: int
    seed: int
    backup_after: float
    backup_after_unit: str
    save_every: float
    save_every_unit: str
    save_filename_prefix: str
    samples: tuple[SampleDefinition, ...]
    output_model_format: LoraFormat = "DIFFUSERS_LORA"
    report: tuple[FieldNote, ...] = ()

    @property
    def variant(self) -> WanVariant:
        """The WAN model that is trained."""
        return get_variant(self.model_type)

    @property
    def fps(self) -> int:
        """Frames per second of a sample."""
        return self.variant.fps

    @property
    def spatial_multiple(self) -> int:
        """Width and height in pixels are multiples of this."""
        return self.variant.spatial_multiple

    @property
    def run_database(self) -> Path:
        """Where the runs of this workspace are recorded."""
        return run_database_path(self.workspace_dir)

    @property
    def checkpoint_dir(self) -> Path:
        """Where checkpoints are written."""
        return self.workspace_dir / "checkpoints"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types, for the run database and the hooks."""
        values = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"training_method": "LORA", **values}  # the one that this host knows, as OneTrainer calls it


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value
