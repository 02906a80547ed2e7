"""Small training runs: clips made on the spot, and presets for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.hosts.standalone import Preset, read_preset


@dataclass
class Workplace:
    """A folder with clips and a model, in which presets are written and trained."""

    folder: Path
    model: Path

    @property
    def clips(self) -> Path:
        return self.folder / "clips"

    def preset(self, **changes: Any) -> Preset:
        """A preset of a few quick steps; `changes` replace its fields."""
        values: dict[str, Any] = {
            "model_type": "WAN_2_1_T2V_1_3B",
            "training_method": "LORA",
            "base_model_name": str(self.model),
            "concepts": [{"path": str(self.clips), "image": {"enable_crop_jitter": False}}],
            "workspace_dir": str(self.folder / "workspace"),
            "cache_dir": str(self.folder / "cache"),
            "output_model_destination": str(self.folder / "lora.safetensors"),
            "resolution": "32x32",
            "frames": 5,
            "epochs": 2,
            "learning_rate": 1e-3,
            "learning_rate_warmup_steps": 0,
            "train_dtype": "FLOAT_32",
            "train_device": "cpu",
            "timestep_shift": 3.0,
            "lora_rank": 4,
            "lora_alpha": 4,
            "transformer": {"gradient_checkpointing": False},
            "backup_after": 0,
            "dataloader_threads": 1,
            "samples": [],
            **changes,
        }
        path = self.folder / "preset.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        return read_preset(path)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of a second with captions. Copy it, never write to it."""
    from clips import write_clip
    from painted import paint_frame

    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        pictures = [paint_frame(frame, width=64, height=48, hue=number / 5) for frame in range(16)]
        write_clip(folder / f"clip{number}.mp4", pictures)
        (folder / f"clip{number}.txt").write_text(f"a clip of numbers, take {number}\n", encoding="utf-8")
    return folder


@pytest.fixture
def make_workplace(tmp_path: Path, tiny_wan: Path, clip_folder: Path) -> Callable[[str], Workplace]:
    """Makes a workplace of its own by name, with all five clips."""

    def make(name: str) -> Workplace:
        place = Workplace(tmp_path / name, tiny_wan)
        shutil.copytree(clip_folder, place.clips)
        return place

    return make


@pytest.fixture
def workplace(make_workplace: Callable[[str], Workplace]) -> Workplace:
    return make_workplace("run")
