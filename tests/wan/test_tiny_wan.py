"""The tiny model: loads like a released one, behaves like one, and is the same for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wan_fixes.wan.latents import normalize_latents
from wan_fixes.wan.variants import VARIANTS


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_a_few_megabytes_in_diffusers_layout(tiny_wan):
    files = files_of(tiny_wan)
    assert {path.split("/")[0] for path in files} == {
        "model_index.json",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "transformer",
        "vae",
    }
    assert sum(map(len, files.values())) < 5_000_000


def test_the_same_seed_gives_the_same_files_and_leaves_the_global_generator_alone(tiny_wan, tmp_path):
    from tiny_wan import make_tiny_wan

    state = torch.get_rng_state()
    again = make_tiny_wan(tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), state)
    assert files_of(again) == files_of(tiny_wan)
    other = make_tiny_wan(tmp_path / "other", seed=1)
    for part in ("transformer", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        assert files_of(other)[name] != files_of(again)[name]


def test_normalised_latents_are_spread_like_a_standard_normal(tiny_pipeline):
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(2, 3, 3, 4, 4, generator=generator) * 2 - 1
    clips = torch.nn.functional.interpolate(coarse, size=(9, 64, 64), mode="trilinear")
    with torch.no_grad():
        raw = tiny_pipeline.vae.encode(clips).latent_dist.sample(generator)
    latents = normalize_latents(raw, tiny_pipeline.vae.config)
    assert 0.5 < latents.std() < 2.0
    assert latents.mean().abs() < 0.5
    assert latents.std(dim=(0, 2, 3, 4)).min() > 0.2
    assert not torch.allclose(latents[0], latents[1], atol=0.1)


def test_the_prompt_and_the_noise_level_matter_to_the_transformer(tiny_pipeline):
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        red, blue = (
            tiny_pipeline.encode_prompt(text, do_classifier_free_guidance=False, max_sequence_length=512)[0]
            for text in ("a red ball", "a blue square at night")
        )
        transformer = tiny_pipeline.transformer
        first = transformer(latents, torch.tensor([500.0]), red).sample
        assert (first - transformer(latents, torch.tensor([500.0]), blue).sample).abs().max() > 1e-4
        assert (first - transformer(latents, torch.tensor([50.0]), red).sample).abs().max() > 1e-3


def test_the_tokenizer_pads_ends_and_knows_the_words(tiny_wan):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_wan / "tokenizer")
    tokens = tokenizer(["a red ball"], padding="max_length", max_length=8, truncation=True)
    assert tokenizer.convert_ids_to_tokens(tokens.input_ids[0]) == ["▁a", "▁red", "▁ball", "</s>", *["<pad>"] * 4]
    assert tokens.attention_mask == [[1, 1, 1, 1, 0, 0, 0, 0]]
    long = tokenizer(["ball " * 50], max_length=8, truncation=True).input_ids[0]
    assert len(long) == 8 and long[-1] == tokenizer.eos_token_id


def test_two_experts_differ_and_bring_their_boundary(tiny_wan_two_experts):
    index = json.loads((tiny_wan_two_experts / "model_index.json").read_text(encoding="utf-8"))
    assert index["boundary_ratio"] == 0.875
    assert index["transformer_2"] == ["diffusers", "WanTransformer3DModel"]
    files = files_of(tiny_wan_two_experts)
    name = "diffusion_pytorch_model.safetensors"
    assert files[f"transformer/{name}"] != files[f"transformer_2/{name}"]


@pytest.mark.parametrize(
    ("model", "pipeline_class", "variant"),
    [
        ("tiny_wan", "WanPipeline", "WAN_2_1_T2V_1_3B"),
        ("tiny_wan_two_experts", "WanPipeline", "WAN_2_2_T2V_A14B"),
        ("tiny_wan_i2v", "WanImageToVideoPipeline", "WAN_2_1_I2V_14B"),
        ("tiny_wan_i2v_two_experts", "WanImageToVideoPipeline", "WAN_2_2_I2V_A14B"),
        ("tiny_wan_ti2v", "WanPipeline", "WAN_2_2_TI2V_5B"),
    ],
)
def test_each_has_the_shape_of_its_variant_and_loads_with_its_pipeline(request, model, pipeline_class, variant):
    import diffusers

    variant = VARIANTS[variant]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(request.getfixturevalue(model))
    assert type(pipeline).__name__ == pipeline_class
    assert pipeline.transformer.config.in_channels == variant.in_channels
    assert pipeline.config.boundary_ratio == variant.boundary_ratio
    assert (pipeline.transformer_2 is not None) == (variant.experts == 2)
    assert (pipeline.transformer.config.image_dim is not None) == variant.has_image_encoder
    assert (getattr(pipeline, "image_encoder", None) is not None) == variant.has_image_encoder
    assert pipeline.config.expand_timesteps == (variant.mode == "ti2v")
    patch = pipeline.transformer.config.patch_size[1]
    assert pipeline.vae.config.scale_factor_spatial * patch == variant.spatial_multiple
    assert pipeline.vae.config.scale_factor_temporal == variant.temporal_compression


def test_the_5b_vae_is_calibrated_too(tiny_wan_ti2v):
    from diffusers import AutoencoderKLWan
    from tiny_wan import calibration_clip

    vae = AutoencoderKLWan.from_pretrained(tiny_wan_ti2v, subfolder="vae")
    with torch.no_grad():
        latents = normalize_latents(vae.encode(calibration_clip()).latent_dist.mode(), vae.config)
    assert latents.shape == (4, 48, 3, 4, 4)
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-3
    assert (latents.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 1e-2


def test_the_image_parts_are_named_as_in_released_repositories(tiny_wan_i2v):
    """Or else a model made with one version of transformers starts from random weights in another."""
    import safetensors

    index = json.loads((tiny_wan_i2v / "model_index.json").read_text(encoding="utf-8"))
    assert index["image_processor"] == ["transformers", "CLIPImageProcessor"]
    with safetensors.safe_open(tiny_wan_i2v / "image_encoder" / "model.safetensors", framework="pt") as file:
        assert all(name.startswith("vision_model.") for name in file.keys())  # noqa: SIM118, it is no dict


@pytest.mark.parametrize(("experts", "mode"), [(3, "t2v"), (2, "ti2v"), (1, "v2v")])
def test_a_model_that_nobody_released_is_refused(tmp_path, experts, mode):
    from tiny_wan import make_tiny_wan

    with pytest.raises(ValueError, match=r"experts|mode"):
        make_tiny_wan(tmp_path, experts=experts, mode=mode)
