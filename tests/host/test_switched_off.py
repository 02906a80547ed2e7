"""Switched off, OneTrainer trains to the bit as it does without the plugin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.own_host import make_own_host
from host.tiny_stable_diffusion import make_pictures, make_tiny_stable_diffusion, write_config

# A fine-tune, since stock draws the first weights of a LoRA from a generator that it does not seed.
REPRODUCIBLE = {
    "seed": 7,
    "dataloader_threads": 1,
    "training_method": "FINE_TUNE",
    "output_model_format": "DIFFUSERS",
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield make_own_host(tmp_path_factory.mktemp("host"), Path(os.environ["WAN_FIXES_ONETRAINER"]))


def train(host: Any, model: Path, pictures: Path, work: Path) -> tuple[list[float], dict[str, bytes], str]:
    """Losses, files of the trained model, and standard error of a run of the stock script."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = work / "output"
    config = write_config(model, pictures, work, **REPRODUCIBLE, output_model_destination=str(output))
    done = host.launch("scripts/train.py", "--config-path", str(config))
    assert done.returncode == 0, done.stderr[-3000:]
    (events,) = (work / "workspace" / "tensorboard").iterdir()
    board = EventAccumulator(str(events))
    board.Reload()
    losses = [event.value for event in board.Scalars("loss/train_step")]
    files = {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    return losses, files, done.stderr


def test_losses_and_weights_are_those_of_a_onetrainer_without_the_plugin(host: Any, tmp_path: Path) -> None:
    model = make_tiny_stable_diffusion(tmp_path / "model")
    pictures = make_pictures(tmp_path / "pictures")

    losses, files, _ = train(host, model, pictures, tmp_path / "without")
    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    (host.work / "settings.json").write_text('{"enabled": false}')
    losses_off, files_off, said = train(host, model, pictures, tmp_path / "off")

    assert "wan-fixes" not in said
    assert len(losses) == 6 and len(set(losses)) == 6
    assert losses_off == losses
    weights = Path("unet/diffusion_pytorch_model.safetensors")
    assert files[str(weights)] != (model / weights).read_bytes()
    assert files_off == files

    (host.work / "settings.json").write_text("{}")  # and the comparison can fail: the plugin has an order of its own
    losses_on, _, said = train(host, model, pictures, tmp_path / "on")
    assert "is active in" in said and losses_on != losses
