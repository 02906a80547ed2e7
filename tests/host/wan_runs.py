"""Runs of stock OneTrainer's trainer over tiny WAN models: configurations, clips, and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# What `scripts/train.py` reads, as a user's configuration file has it.
BASE: dict[str, Any] = {
    "__version": 11,
    "training_method": "LORA",
    "model_type": "WAN_2_1_T2V_1_3B",
    "tensorboard": False,
    "train_device": "cpu",
    "temp_device": "cpu",
    "train_dtype": "FLOAT_32",
    "output_dtype": "FLOAT_32",
    "output_model_format": "DIFFUSERS_LORA",
    "resolution": "64",
    "frames": "9",
    "epochs": 1,
    "batch_size": 1,
    "learning_rate": 1e-2,
    "learning_rate_warmup_steps": 0,
    "lora_rank": 4,
    "lora_alpha": 2.0,
    "lora_weight_dtype": "FLOAT_32",
    "layer_filter": "attn1,attn2,ffn",
    "layer_filter_preset": "attn-mlp",
    "timestep_shift": 3.0,
    "clear_cache_before_training": False,
    "sample_after_unit": "NEVER",
    "backup_after_unit": "NEVER",
    "samples": [],
    "text_encoder": {"train": False},
    "optimizer": {"optimizer": "ADAMW"},
}


def make_clips(folder: Path, count: int = 3, *, frames: int = 24, size: tuple[int, int] = (64, 64)) -> Path:
    """Clips at 16 fps that stock reads too, each with a caption."""
    from clips import write_clip
    from painted import paint_frame

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pictures = (paint_frame(n, width=size[0], height=size[1], hue=number / count) for n in range(frames))
        write_clip(folder / f"clip{number}.mp4", pictures)
        (folder / f"clip{number}.txt").write_text(f"a test clip, number {number}", encoding="utf-8")
    return folder


def write_configuration(model: Path, clips: Path, work: Path, **changes: Any) -> Path:
    """A file for `scripts/train.py --config-path`: `BASE`, where everything is, and `changes`."""
    content = BASE | {
        "base_model_name": str(model),
        "workspace_dir": str(work / "workspace"),
        "cache_dir": str(work / "cache"),
        "debug_dir": str(work / "debug"),
        "output_model_destination": str(work / "lora.safetensors"),
        "concepts": [{"__version": 2, "name": "clips", "path": str(clips), "seed": 1}],
    }
    path = work / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def configuration(model: Path, clips: Path, work: Path, **changes: Any) -> Any:
    """A `TrainConfig` read as `scripts/train.py` reads it."""
    from modules.util.config.TrainConfig import TrainConfig

    path = write_configuration(model, clips, work, **changes)
    config = TrainConfig.default_values()
    config.from_dict(json.loads(path.read_text(encoding="utf-8")), migrate=True)
    return config


class Trained:
    """A finished run: its trainer, and the loss of every step."""

    def __init__(self, trainer: Any, losses: list[float]) -> None:
        self.trainer = trainer
        self.losses = losses


def train(config: Any) -> Trained:
    """Start, train and end, in the order of `scripts/train.py`. Stock leaves the adapter's first values to chance."""
    import torch
    from modules.util import create
    from modules.util.callbacks.TrainCallbacks import TrainCallbacks
    from modules.util.commands.TrainCommands import TrainCommands

    torch.manual_seed(0)
    trainer = create.create_trainer(config, TrainCallbacks(), TrainCommands())
    trainer.start()
    losses: list[float] = []
    calculate_loss = trainer.model_setup.calculate_loss

    def record(*arguments: Any, **options: Any) -> Any:
        loss = calculate_loss(*arguments, **options)
        losses.append(loss.item())
        return loss

    trainer.model_setup.calculate_loss = record
    trainer.train()
    trainer.end()
    return Trained(trainer, losses)
