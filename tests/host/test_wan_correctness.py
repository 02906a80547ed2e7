"""What stock's own data modules cache and what is sampled is what diffusers computes, and nothing broken gets in.

Velocity and loss of every variant are in `test_wan_reference.py`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TOLERANCE = 1e-5
"""Largest difference allowed in fp32."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in the very size that is trained: no scaling between the file and the VAE."""
    from painted import paint_frame
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        Image.fromarray(paint_frame(number, width=64, height=64, hue=number / 2)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"  a caf&eacute;,  number {number} ", encoding="utf-8")
    return folder


def start(runs: Any, model: Path, data: Path, work: Path, **changes: Any) -> SimpleNamespace:
    """A trainer that is ready for its first step, and its first batch."""
    from modules.util import create
    from modules.util.callbacks.TrainCallbacks import TrainCallbacks
    from modules.util.commands.TrainCommands import TrainCommands

    config = runs.configuration(model, data, work, **changes)
    trainer = create.create_trainer(config, TrainCallbacks(), TrainCommands())
    trainer.start()
    trainer.data_loader.get_data_set().start_next_epoch()
    trainer.model_setup.setup_train_device(trainer.model, config)
    batches = list(trainer.data_loader.get_data_loader())
    return SimpleNamespace(config=config, model=trainer.model, setup=trainer.model_setup, batches=batches)


@pytest.fixture(scope="module")
def prepared(runs: Any, tiny_wan: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return start(runs, tiny_wan, pictures, tmp_path_factory.mktemp("work"), batch_size=2, frames="1")


def reference_latents(pipeline: Any, pixels: Any) -> Any:
    """As `WanPipeline` inverts them before it decodes."""
    import torch

    config = pipeline.vae.config
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
    with torch.no_grad():
        return (pipeline.vae.encode(pixels).latent_dist.mode() - mean) / std


def largest_difference(first: Any, second: Any) -> float:
    assert first.shape == second.shape
    return float((first - second).detach().abs().max())


def test_cached_latents_are_those_of_the_reference(prepared: Any, tiny_pipeline: Any) -> None:
    import numpy as np
    import torch
    from PIL import Image

    from wan_fixes.wan.latents import normalize_latents

    (batch,) = prepared.batches
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in batch["image_path"]]
    clip = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1.0
    expected = reference_latents(tiny_pipeline, clip)

    assert (
        largest_difference(normalize_latents(batch["latent_image"], prepared.model.vae.config), expected) <= TOLERANCE
    )


def test_cached_captions_are_encoded_as_the_pipeline_encodes_prompts(prepared: Any, tiny_pipeline: Any) -> None:
    (batch,) = prepared.batches
    raw = ["  a caf&eacute;,  number " + Path(path).stem + " " for path in batch["image_path"]]
    expected, _ = tiny_pipeline.encode_prompt(raw, do_classifier_free_guidance=False, max_sequence_length=512)

    assert largest_difference(batch["text_encoder_hidden_state"], expected) <= TOLERANCE


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_a_sample_is_the_clip_that_the_pipeline_makes(prepared: Any, tiny_pipeline: Any, guidance_scale: float) -> None:
    import numpy as np
    import torch
    from modules.util import create

    arguments = {"prompt": "a red ball", "negative_prompt": "grey", "height": 64, "width": 64}
    sampler = create.create_model_sampler(
        torch.device("cpu"), torch.device("cpu"), prepared.model, prepared.config.model_type
    )
    clip = sampler.sample_clip(**arguments, frames=9, seed=3, steps=3, guidance_scale=guidance_scale)
    expected = tiny_pipeline(
        **arguments,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).frames[0]

    assert clip.shape == (9, 64, 64, 3)
    assert np.abs(clip.numpy().astype(int) - (expected * 255).round().astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timestep_distribution": "COS_MAP"}, "timestep_distribution"),
        ({"frames": "10"}, "10 frames"),
        ({"dynamic_timestep_shifting": True}, "timestep_shift"),
        ({"model_type": "WAN_2_2_TI2V_5B"}, "channels"),
        ({"base_model_name": "/nowhere/at/all"}, "model folder is not there"),
    ],
)
def test_what_wan_cannot_do_is_refused_with_the_setting_to_change(
    runs: Any, tiny_wan: Path, pictures: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    from wan_fixes.errors import UserError

    with pytest.raises(UserError, match=words):
        start(runs, tiny_wan, pictures, tmp_path, **changes)


@pytest.mark.parametrize("damage", ["missing", "misshapen", "not a number"])
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_broken_weight_is_an_error_at_load_that_names_its_file(
    runs: Any, tiny_wan: Path, pictures: Path, tmp_path: Path, part: str, damage: str
) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    from wan_fixes.errors import UserError

    model = shutil.copytree(tiny_wan, tmp_path / "model")
    (file,) = (model / part).glob("*.safetensors")
    weights = load_file(file)
    name = next(name for name, weight in weights.items() if weight.ndim == 2 or weight.ndim == 5)
    if damage == "missing":
        del weights[name]
    elif damage == "misshapen":
        weights[name] = weights[name][:-1].contiguous()
    else:
        weights[name].view(-1)[-1] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(UserError) as caught:
        start(runs, model, pictures, tmp_path)
    assert Path(caught.value.path) == file
    assert name in str(caught.value)


def test_a_model_in_shards_loads_whole_and_a_shard_that_is_missing_is_named(
    runs: Any, tiny_wan: Path, tmp_path: Path
) -> None:
    import shutil

    import torch
    from diffusers import WanTransformer3DModel
    from modules.util import create

    from wan_fixes.errors import UserError

    model = shutil.copytree(tiny_wan, tmp_path / "model")
    original = WanTransformer3DModel.from_pretrained(tiny_wan / "transformer")
    shutil.rmtree(model / "transformer")
    original.save_pretrained(model / "transformer", max_shard_size="200KB")
    shards = sorted((model / "transformer").glob("*.safetensors"))
    assert len(shards) > 2

    config = runs.configuration(model, tmp_path, tmp_path)

    def load() -> Any:
        loader = create.create_model_loader(config.model_type, config.training_method)
        return loader.load(config.model_type, config.model_names(), config.weight_dtypes(), config.quantization)

    loaded = load().transformer.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in original.state_dict().items())
    shards[1].unlink()
    with pytest.raises(UserError, match="missing") as caught:
        load()
    assert Path(caught.value.path) == shards[1]
