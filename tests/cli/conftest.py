"""Runs the command line in this process, away from the settings and the terminal of whoever runs the tests."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from painted import paint_frame
from typer.testing import CliRunner

from wan_fixes.cli import console
from wan_fixes.cli.main import app

Wan = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings = tmp_path / "settings.json"
    settings.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("WAN_FIXES_SETTINGS", str(settings))
    for screen in (console.out, console.err):
        monkeypatch.setattr(screen, "_width", 80)
    logger = logging.getLogger("wan_fixes")
    before = logger.level, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.handlers = before[1]


@pytest.fixture
def wan() -> Wan:
    """`wan("check", preset)` gives the exit code, stdout and stderr of that command."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="wan")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with one good clip, `good.mp4`, of 24 frames at 16 fps, and its caption."""
    from clips import write_clip

    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "good.mp4", (paint_frame(n, width=64, height=48) for n in range(24)))
    (folder / "good.txt").write_text("numbers on a moving background", encoding="utf-8")
    return folder


@pytest.fixture
def write_preset(tmp_path: Path, tiny_wan: Path) -> Callable[..., Path]:
    """`write_preset(folder)` makes a preset whose only concept is that folder; further fields by name."""

    def write(*folders: Path, **fields: Any) -> Path:
        preset = {
            "model_type": "WAN_2_1_T2V_1_3B",
            "training_method": "LORA",
            "base_model_name": str(tiny_wan),
            "workspace_dir": str(tmp_path / "workspace"),
            "cache_dir": str(tmp_path / "cache"),
            "output_model_destination": str(tmp_path / "lora.safetensors"),
            "concepts": [{"name": folder.name, "path": str(folder)} for folder in folders],
            "resolution": "64x48",
            "frames": 9,
            "batch_size": 1,
            "epochs": 1,
            "learning_rate": 0.001,
            "lora_rank": 4,
            "train_dtype": "FLOAT_32",
            "train_device": "cpu",
            "backup_after_unit": "NEVER",
        }
        path = tmp_path / "preset.json"
        path.write_text(json.dumps(preset | fields), encoding="utf-8")
        return path

    return write
