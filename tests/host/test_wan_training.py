"""WAN text-to-video trains inside stock OneTrainer: LoRA, cache, save, backup, resume, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def runs(wan_host: Path) -> Any:
    import wan_runs

    return wan_runs


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def trained(runs: Any, tiny_wan: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One LoRA run of two epochs, with a backup before it is saved."""
    work = tmp_path_factory.mktemp("lora")
    config = runs.configuration(tiny_wan, clips, work, epochs=2, backup_before_save=True)
    result = runs.train(config)
    result.work = work
    return result


def test_a_lora_run_takes_a_step_for_each_clip_and_changes_its_adapter(trained: Any) -> None:
    assert len(trained.losses) == 6
    assert all(loss > 0 for loss in trained.losses)
    model = trained.trainer.model
    assert all(module.lora_up.weight.abs().max() > 0 for module in model.transformer_lora.lora_modules.values())
    assert not any(parameter.requires_grad for parameter in model.vae.parameters())


def test_the_saved_lora_acts_in_diffusers_as_it_did_while_training(trained: Any, tiny_wan: Path, runs: Any) -> None:
    import torch
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(tiny_wan)
    generator = torch.Generator().manual_seed(0)
    arguments = {
        "hidden_states": torch.randn(1, 16, 3, 8, 8, generator=generator),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 512, 32, generator=generator),
        "return_dict": False,
    }
    with torch.no_grad():
        plain = pipeline.transformer(**arguments)[0]
        pipeline.load_lora_weights(trained.work, weight_name="lora.safetensors")
        adapted = pipeline.transformer(**arguments)[0]
        live = trained.trainer.model.transformer.eval()(**arguments)[0]

    assert (adapted - plain).abs().max() > 1e-3
    assert (adapted - live).abs().max() <= 1e-6


def test_a_run_goes_on_from_its_backup_as_if_it_had_not_stopped(
    trained: Any, runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    first = runs.train(runs.configuration(tiny_wan, clips, tmp_path, epochs=1, backup_before_save=True))
    again = runs.train(runs.configuration(tiny_wan, clips, tmp_path, epochs=2, continue_last_backup=True))

    assert first.losses + again.losses == pytest.approx(trained.losses, rel=1e-6)
    whole, resumed = (load_file(folder / "lora.safetensors") for folder in (trained.work, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-7) for name in whole)
