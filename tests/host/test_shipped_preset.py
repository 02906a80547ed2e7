"""A shipped preset run without OneTrainer's window: what it lacks is said, and with that it trains."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wan_fixes
from host.own_host import make_own_host
from host.wan_runs import make_clips
from wan_fixes.hosts.onetrainer.symbols import SourceSymbols, read_from
from wan_fixes.hosts.onetrainer.touch_points import PATCHES

PRESETS = Path(wan_fixes.__file__).parent / "hosts" / "onetrainer" / "presets"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    host = make_own_host(tmp_path_factory.mktemp("host"), Path(os.environ["WAN_FIXES_ONETRAINER"]))
    symbols = SourceSymbols(read_from(host.checkout))
    missing = [symbol for patch in PATCHES if patch.name.startswith("wan ") for symbol in symbols.missing(patch)]
    if missing:
        pytest.skip(f"this OneTrainer has no {', '.join(missing)}")
    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    yield host


def test_a_preset_trains_once_the_files_of_the_window_are_there_and_says_so_before(
    host: Any, tiny_wan: Path, tmp_path: Path
) -> None:
    (shipped,) = PRESETS.glob("WAN 2.1 T2V 1.3B/*LoRA 16GB*.json")
    content = json.loads(shipped.read_text(encoding="utf-8"))
    preset = tmp_path / "preset.json"
    # Only what is tiny, on the CPU and in this test's folders.
    changes = {
        "base_model_name": str(tiny_wan),
        "resolution": "64",
        "frames": "9",
        "epochs": 1,
        "train_device": "cpu",
        "tensorboard": False,
        "workspace_dir": str(tmp_path / "workspace"),
        "cache_dir": str(tmp_path / "cache"),
        "debug_dir": str(tmp_path / "debug"),
        "output_model_destination": str(tmp_path / "lora.safetensors"),
    }
    preset.write_text(json.dumps(content | changes), encoding="utf-8")

    refused = host.wan("train", "--host", str(host.checkout), "--config", str(preset))

    assert refused.returncode == 2
    assert "training_concepts" in refused.stderr and "training_samples" in refused.stderr
    assert "open OneTrainer's window once" in refused.stderr and "Traceback" not in refused.stderr

    clips = make_clips(tmp_path / "clips", 1)
    files = {"training_concepts/concepts.json": [{"path": str(clips), "seed": 1}], "training_samples/samples.json": []}
    for name, listed in files.items():  # as the window writes them
        (host.checkout / name).parent.mkdir()
        (host.checkout / name).write_text(json.dumps(listed), encoding="utf-8")

    done = host.wan("train", "--host", str(host.checkout), "--config", str(preset))

    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "lora.safetensors").is_file()
