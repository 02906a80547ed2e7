"""A configuration without fault, its clips and its model folder: each test spoils one thing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.preflight import ConfigFinding, check_config
from wan_fixes.wan.variants import VARIANTS

Check = Callable[..., list[ConfigFinding]]


def make_clips(folder: Path, *, count: int = 12, ending: str = ".mp4", captions: bool = True) -> Path:
    """A folder of files that are clips by their names; no rule opens them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:02}{ending}").write_bytes(b"")
        if captions:
            (folder / f"{number:02}.txt").write_text("a caption", encoding="utf-8")
    return folder


def make_model(folder: Path, name: str, **changes: Any) -> Path:
    """The configurations of a released model in diffusers' layout, without its weights."""
    variant = VARIANTS[name]
    index: dict[str, Any] = {"_class_name": "WanImageToVideoPipeline" if variant.mode == "i2v" else "WanPipeline"}
    index["transformer_2"] = ["diffusers", "WanTransformer3DModel"] if variant.experts == 2 else [None, None]
    config = {
        "in_channels": variant.in_channels,
        "num_attention_heads": variant.heads,
        "num_layers": variant.layers,
        "image_dim": 1280 if variant.has_image_encoder else None,
        **changes,
    }
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "transformer" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A LoRA of the 1.3B that nothing can be said against, with relative paths in `tmp_path`."""
    make_clips(tmp_path / "clips")
    make_model(tmp_path / "model", "WAN_2_1_T2V_1_3B")
    return {
        "model_type": "WAN_2_1_T2V_1_3B",
        "training_method": "LORA",
        "base_model_name": "model",
        "workspace_dir": "workspace",
        "cache_dir": "cache",
        "output_model_destination": "out/lora.safetensors",
        "concepts": [{"name": "clips", "path": "clips"}],
        "resolution": "480",
        "frames": "33",
        "batch_size": 1,
        "epochs": 50,
        "learning_rate": 1e-4,
        "lora_rank": 16,
        "lora_alpha": 16.0,
        "train_dtype": "BFLOAT_16",
        "timestep_shift": 3.0,
    }


@pytest.fixture
def check(tmp_path: Path, config: dict[str, Any]) -> Check:
    """`check(frames=32)` gives what is found of the configuration with that change."""

    def run(**changes: Any) -> list[ConfigFinding]:
        return check_config({**config, **changes}, base=tmp_path)

    return run


@pytest.fixture
def check_standalone(tmp_path: Path, config: dict[str, Any]) -> Check:
    """The same for the standalone host."""

    def run(**changes: Any) -> list[ConfigFinding]:
        return check_config({**config, **changes}, base=tmp_path, beside=tmp_path)

    return run


def only(findings: list[ConfigFinding], rule: str, severity: str | None = None) -> ConfigFinding:
    """The one finding there is, which is of that rule."""
    assert [found.rule for found in findings] == [rule], [str(found) for found in findings]
    assert severity is None or findings[0].severity == severity, str(findings[0])
    return findings[0]
