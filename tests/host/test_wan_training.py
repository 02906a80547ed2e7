"""WAN text-to-video trains inside stock OneTrainer: LoRA, cache, save, backup, resume, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


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


@pytest.mark.parametrize("name", ["DIFFUSERS_LORA", "COMFY_LORA", "KOHYA_LORA", "ORIGINAL_LORA"])
def test_a_lora_comes_back_from_every_format_as_it_was(trained: Any, tiny_wan: Path, tmp_path: Path, name: str) -> None:
    import torch
    from modules.util import create
    from modules.util.enum.ModelFormat import ModelFormat
    from modules.util.enum.TrainingMethod import TrainingMethod
    from safetensors.torch import load_file

    from wan_fixes.wan.lora_keys import lora_to_diffusers

    model, config = trained.trainer.model, trained.trainer.config
    assert ModelFormat[name] in config.model_type.supported_output_formats(TrainingMethod.LORA)
    saver = create.create_model_saver(config.model_type, TrainingMethod.LORA)
    file = tmp_path / "lora.safetensors"
    saver.save(model, config.model_type, ModelFormat[name], str(file), None)

    # As any reader of the format takes it, and as OneTrainer reads it to go on from.
    expected = load_file(trained.work / "lora.safetensors")
    read = lora_to_diffusers(load_file(file))
    assert read.keys() == expected.keys()
    assert all(torch.allclose(read[key], expected[key], atol=1e-7) for key in expected)
    names = config.model_names()
    names.lora = str(file)
    loaded = create.create_model_loader(config.model_type, TrainingMethod.LORA).load(
        config.model_type, names, config.weight_dtypes(), config.quantization
    )
    live = model.transformer_lora.state_dict()
    for key in (key for key in live if key.endswith("lora_down.weight")):
        up, alpha = (key.replace("lora_down.weight", end) for end in ("lora_up.weight", "alpha"))
        deltas = [s[alpha] / len(s[key]) * s[up] @ s[key] for s in (live, loaded.lora_state_dict)]
        assert torch.allclose(*deltas, atol=1e-7)


def test_a_lora_of_another_model_is_refused(
    trained: Any, runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from wan_fixes.errors import UserError

    state = load_file(trained.work / "lora.safetensors")
    key = next(key for key in state if key.endswith("lora_A.weight"))
    save_file(state | {key: state[key][:, :-8].contiguous()}, tmp_path / "other.safetensors")

    with pytest.raises(UserError, match="is made for a layer of 88 numbers"):
        runs.train(runs.configuration(tiny_wan, clips, tmp_path, lora_model_name=str(tmp_path / "other.safetensors")))


def test_a_lora_of_another_rank_is_refused_with_the_rank_to_set(
    trained: Any, runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    from wan_fixes.errors import UserError

    lora = str(trained.work / "lora.safetensors")
    with pytest.raises(UserError, match="set lora_rank to 4"):
        runs.train(runs.configuration(tiny_wan, clips, tmp_path, lora_model_name=lora, lora_rank=8))


def test_samples_are_written_as_a_clip_at_the_models_rate_and_as_a_still(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    import av
    from PIL import Image

    sample = {"prompt": "a ball", "width": 64, "height": 64, "diffusion_steps": 2, "cfg_scale": 3.0, "seed": 1}
    runs.train(
        runs.configuration(
            tiny_wan,
            clips,
            tmp_path,
            sample_after=1,
            sample_after_unit="EPOCH",
            samples=[sample | {"frames": 9}, sample | {"frames": 1}],
        )
    )

    (clip,) = (tmp_path / "workspace").glob("samples/0*/*.mp4")
    (still,) = (tmp_path / "workspace").glob("samples/1*/*.jpg")
    with av.open(str(clip)) as container:
        assert container.streams.video[0].average_rate == 16
        assert sum(1 for _ in container.decode(video=0)) == 9
    assert Image.open(still).size == (64, 64)
