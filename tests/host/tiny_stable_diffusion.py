"""A tiny random Stable Diffusion 1.5 in diffusers' layout, and pictures for it: a model type of OneTrainer's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BASE: dict[str, Any] = {
    "__version": 11,
    "training_method": "LORA",
    "model_type": "STABLE_DIFFUSION_15",
    "tensorboard": False,
    "train_device": "cpu",
    "temp_device": "cpu",
    "train_dtype": "FLOAT_32",
    "output_dtype": "FLOAT_32",
    "resolution": "64",
    "epochs": 2,
    "batch_size": 1,
    "learning_rate_warmup_steps": 0,
    "lora_rank": 2,
    "clear_cache_before_training": False,
    "sample_after_unit": "NEVER",
    "backup_after_unit": "NEVER",
    "samples": [],
    "output_model_format": "LEGACY_LORA",
    "text_encoder": {"train": False},
    "optimizer": {"optimizer": "ADAMW"},
}


def make_tiny_stable_diffusion(folder: Path) -> Path:
    """Write the model; a few hundred kilobytes."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        latent_channels=4,
    ).save_pretrained(folder / "vae")
    tiny_clip_encoder().save_pretrained(folder / "text_encoder")
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    write_clip_tokenizer(folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def tiny_clip_encoder() -> Any:
    """A `CLIPTextModel` for the tokens of `write_clip_tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        vocab_size=98, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    return CLIPTextModel(text)


def write_clip_tokenizer(folder: Path) -> None:
    """One token for each letter, and one for each letter at a word's end."""
    letters = [chr(code) for code in range(ord("!"), ord("!") + 48)] + [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = [*letters[:48], *(f"{letter}</w>" for letter in letters[:48]), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    configuration = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration), encoding="utf-8")


def make_pictures(folder: Path, count: int = 3) -> Path:
    """Pictures with captions, each of another colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((64, 64, 3), 60 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture{number}.png")
        (folder / f"picture{number}.txt").write_text(f"a picture, number {number}", encoding="utf-8")
    return folder


def add_broken_picture(folder: Path) -> Path:
    """A file that is cut off in the middle, as a broken download leaves it."""
    whole = (folder / "picture0.png").read_bytes()
    broken = folder / "broken.png"
    broken.write_bytes(whole[: len(whole) // 2])
    (folder / "broken.txt").write_text("never seen", encoding="utf-8")
    return broken


def write_config(model: Path, pictures: Path, work: Path, **changes: Any) -> Path:
    """A configuration as OneTrainer's `Export` writes it, for `scripts/train.py --config-path`."""
    content = BASE | {
        "base_model_name": str(model),
        "workspace_dir": str(work / "workspace"),
        "cache_dir": str(work / "cache"),
        "debug_dir": str(work / "debug"),
        "output_model_destination": str(work / "lora.safetensors"),
        "concepts": [{"name": "pictures", "path": str(pictures), "seed": 1}],
    }
    path = work / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path
