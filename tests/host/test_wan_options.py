"""OneTrainer's options that WAN's classes have a part in: masks, precision, caching, optimizers, files of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_caching": False},
        {"batch_size": 2, "gradient_accumulation_steps": 2, "epochs": 4, "ema": "CPU", "ema_update_step_interval": 1},
        {"transformer": {"gradient_checkpointing": False}, "timestep_distribution": "LOGIT_NORMAL"},
        {"loss_weight_fn": "SIGMA", "mae_strength": 0.5, "offset_noise_weight": 0.1},
        {"lora_decompose": True},
        {"peft_type": "LOHA", "output_model_format": "KOHYA_LORA"},
        {"layer_filter": "", "layer_filter_preset": "full"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_run_with_these_options_trains_and_saves(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    result = runs.train(runs.configuration(tiny_wan, clips, tmp_path, **changes))

    assert result.losses
    assert all(0 < loss < 1000 for loss in result.losses)
    assert (tmp_path / "lora.safetensors").stat().st_size > 0


def test_latents_of_a_tiled_vae_are_others_to_the_cache(runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    from mgds.pipelineModules.EncodeVAE import EncodeVAE
    from modules.dataLoader.mixin.DataLoaderMgdsMixin import DataLoaderMgdsMixin

    from wan_fixes.pipeline.fingerprint import describe

    described = []
    create_mgds = DataLoaderMgdsMixin._create_mgds

    def record(self: Any, config: Any, definition: list[Any], *arguments: Any) -> Any:
        described.extend(
            describe(module.autocast_contexts)
            for part in definition
            for module in part or []
            if isinstance(module, EncodeVAE)
        )
        return create_mgds(self, config, definition, *arguments)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(DataLoaderMgdsMixin, "_create_mgds", record)
        for tiling in (False, True):
            work = tmp_path / str(tiling)
            # Wider than a tile, so that tiles are used.
            result = runs.train(runs.configuration(tiny_wan, clips, work, resolution="320", vae_tiling=tiling))
            assert result.trainer.model.vae.use_tiling is tiling
            assert all(loss > 0 for loss in result.losses)

    assert described[0] != described[1]


def test_in_bf16_the_weights_that_diffusers_keeps_in_fp32_are_kept_to_the_bit(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    import torch
    from diffusers import WanTransformer3DModel

    half = {"weight_dtype": "BFLOAT_16"}
    result = runs.train(
        runs.configuration(
            tiny_wan,
            clips,
            tmp_path,
            train_dtype="BFLOAT_16",
            lora_weight_dtype="BFLOAT_16",
            layer_filter="",
            transformer=half,
            text_encoder=half | {"train": False},
        )
    )

    reference = WanTransformer3DModel.from_pretrained(tiny_wan / "transformer", torch_dtype=torch.bfloat16)
    live = dict(result.trainer.model.transformer.named_parameters())
    for name, parameter in reference.named_parameters():
        assert live[name].dtype == parameter.dtype, name
        assert torch.equal(live[name], parameter), name
    assert {parameter.dtype for parameter in live.values()} == {torch.float32, torch.bfloat16}
    assert all(0 < loss < 100 for loss in result.losses)


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_a_dropped_caption_is_the_empty_prompt(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path, probability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from wan_fixes.hosts.onetrainer.wan import setup

    seen = []
    velocity = setup.BaseWanSetup._velocity

    def record(self: Any, model: Any, batch: Any, *arguments: Any) -> Any:
        seen.append(batch["text_encoder_hidden_state"])
        return velocity(self, model, batch, *arguments)

    monkeypatch.setattr(setup.BaseWanSetup, "_velocity", record)
    text_encoder = {"train": False, "dropout_probability": probability}
    result = runs.train(runs.configuration(tiny_wan, clips, tmp_path, epochs=8, text_encoder=text_encoder))

    empty = result.trainer.model.encode_text(text=[""])
    dropped = [torch.allclose(embedding, empty, atol=1e-6) for embedding in seen]
    assert len(dropped) == 16
    assert all(dropped) == (probability == 1.0)
    assert any(dropped)


def test_a_mask_weights_the_latents_of_its_place_in_every_frame(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    import shutil

    import numpy as np
    from PIL import Image

    folder = shutil.copytree(clips, tmp_path / "clips")
    for clip in folder.glob("*.mp4"):
        mask = np.zeros((64, 64), np.uint8)
        mask[:, 32:] = 255
        Image.fromarray(mask).save(clip.with_name(f"{clip.stem}-masklabel.png"))
    result = runs.train(runs.configuration(tiny_wan, folder, tmp_path, masked_training=True, unmasked_weight=0.0))

    dataset = result.trainer.data_loader.get_data_set()
    dataset.start_next_epoch()
    batch = next(iter(result.trainer.data_loader.get_data_loader()))
    latent_mask = batch["latent_mask"]
    assert latent_mask.shape == (1, 1, *batch["latent_image"].shape[2:])
    assert (latent_mask[..., :4] == 0).all()
    assert (latent_mask[..., 4:] == 1).all()
    assert all(loss > 0 for loss in result.losses)


def test_a_mask_shrinks_as_the_vae_does(wan_host: Path) -> None:
    import torch

    from wan_fixes.hosts.onetrainer.wan.data_modules import shrink_mask

    mask = torch.zeros(1, 9, 16, 16)
    mask[:, 0] = 1.0
    mask[:, 5, :8] = 1.0
    small = shrink_mask(mask, (3, 2, 2), 4)

    assert small.shape == (1, 3, 2, 2)
    assert (small[0, 0] == 1).all()
    assert (small[0, 1] == 0).all()
    assert torch.equal(small[0, 2], torch.tensor([[0.25, 0.25], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="does not fit"):
        shrink_mask(mask, (4, 2, 2), 4)


def test_a_lora_trains_over_weights_in_fp8(runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    import torch

    eight_bits = {"weight_dtype": "FLOAT_8"}
    result = runs.train(
        runs.configuration(
            tiny_wan,
            clips,
            tmp_path,
            train_dtype="BFLOAT_16",
            transformer=eight_bits,
            text_encoder=eight_bits | {"train": False},
        )
    )

    weights = {parameter.dtype for parameter in result.trainer.model.transformer.parameters()}
    assert torch.float8_e4m3fn in weights
    assert all(0 < loss < 100 for loss in result.losses)


def load_with_transformer(runs: Any, tiny_wan: Path, tmp_path: Path, weights: dict[str, Any]) -> Any:
    """Load the model with a transformer in a file of its own."""
    from modules.util import create
    from safetensors.torch import save_file

    file = tmp_path / "transformer.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    config = runs.configuration(tiny_wan, tmp_path, tmp_path, transformer={"model_name": str(file)})
    return create.create_model_loader(config.model_type, config.training_method).load(
        config.model_type, config.model_names(), config.weight_dtypes(), config.quantization
    )


@pytest.fixture
def transformer_weights(tiny_wan: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(tiny_wan / "transformer" / "diffusion_pytorch_model.safetensors")


def test_a_transformer_in_a_file_of_its_own_takes_the_place_of_the_folders(
    runs: Any, tiny_wan: Path, tmp_path: Path, transformer_weights: dict[str, Any]
) -> None:
    import torch

    changed = {name: weight * 1.5 for name, weight in transformer_weights.items()}
    live = load_with_transformer(runs, tiny_wan, tmp_path, changed).transformer.state_dict()

    assert live.keys() == changed.keys()
    assert all(torch.equal(live[name], weight) for name, weight in changed.items())


@pytest.mark.parametrize("damage", ["missing", "misshapen", "not a number"])
def test_a_broken_transformer_in_a_file_of_its_own_is_an_error_that_names_it(
    runs: Any, tiny_wan: Path, tmp_path: Path, transformer_weights: dict[str, Any], damage: str
) -> None:
    import torch

    from wan_fixes.errors import UserError

    name = "blocks.1.attn1.to_q.weight"
    if damage == "missing":
        del transformer_weights[name]
    elif damage == "misshapen":
        transformer_weights[name] = transformer_weights[name][:-1].contiguous()
    else:
        transformer_weights[name][0, 0] = torch.nan
    with pytest.raises(UserError) as caught:
        load_with_transformer(runs, tiny_wan, tmp_path, transformer_weights)

    assert Path(caught.value.path) == tmp_path / "transformer.safetensors"
    assert name in str(caught.value)
