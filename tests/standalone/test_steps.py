"""Learning rates as OneTrainer schedules them, and random numbers that hang on seed and batch alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.hosts.standalone.preset import OptimizerSettings, Preset
from wan_fixes.hosts.standalone.steps import (
    draw_sigmas,
    drop_captions,
    learning_rate_factor,
    make_optimizer,
    step_generator,
    step_seed,
)

_PLACE = Path("nowhere")
BASE = Preset(
    path=_PLACE,
    model_type="WAN_2_1_T2V_1_3B",
    base_model_name=_PLACE,
    model_name=_PLACE,
    workspace_dir=_PLACE,
    cache_dir=_PLACE,
    output_model_destination=_PLACE,
    output_dtype="FLOAT_32",
    concepts=(),
    resolution="512",
    frames=25,
    aspect_ratio_bucketing=True,
    latent_caching=True,
    batch_size=1,
    gradient_accumulation_steps=1,
    epochs=1,
    learning_rate=1.0,
    learning_rate_scheduler="CONSTANT",
    learning_rate_warmup_steps=0,
    learning_rate_min_factor=0.0,
    optimizer=OptimizerSettings(),
    clip_grad_norm=None,
    train_device=None,
    train_dtype="FLOAT_32",
    transformer_weight_dtype="FLOAT_32",
    text_encoder_weight_dtype="FLOAT_32",
    vae_weight_dtype="FLOAT_32",
    gradient_checkpointing=False,
    lora_rank=1,
    lora_alpha=1,
    lora_dropout=0.0,
    lora_weight_dtype="FLOAT_32",
    layer_filter=(),
    layer_filter_regex=False,
    timestep_distribution="UNIFORM",
    timestep_shift=1.0,
    noising_weight=0.0,
    noising_bias=0.0,
    min_noising_strength=0.0,
    max_noising_strength=1.0,
    caption_dropout=0.0,
    dataloader_threads=1,
    seed=42,
    backup_after=0,
    backup_after_unit="NEVER",
    save_every=0,
    save_every_unit="NEVER",
    save_filename_prefix="",
    samples=(),
)


def factors(total: int, **changes) -> list[float]:
    preset = dataclasses.replace(BASE, **changes)
    return [learning_rate_factor(preset, step, total) for step in range(total + 1)]


def test_constant_stays():
    assert factors(4) == [1.0] * 5


def test_linear_falls_to_the_smallest_factor():
    assert factors(4, learning_rate_scheduler="LINEAR") == [1.0, 0.75, 0.5, 0.25, 0.0]
    falling = factors(4, learning_rate_scheduler="LINEAR", learning_rate_min_factor=0.2)
    assert falling == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_falls_as_a_half_wave():
    expected = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(5)]
    assert factors(4, learning_rate_scheduler="COSINE") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("warmup", "accumulation", "steps"),
    [(4, 1, 4), (8, 4, 2), (0.5, 1, 5), (0.5, 4, 5), (1, 1, 10), (0, 1, 0)],
)
def test_warm_up_counts_batches_above_1_and_is_a_share_up_to_1(warmup, accumulation, steps):
    rising = factors(10, learning_rate_warmup_steps=warmup, gradient_accumulation_steps=accumulation)
    assert rising[:steps] == pytest.approx([step / steps for step in range(steps)])
    assert rising[steps:] == [1.0] * (11 - steps)


@given(
    scheduler=st.sampled_from(["CONSTANT", "LINEAR", "COSINE"]),
    warmup=st.floats(0, 300),
    smallest=st.floats(0, 1),
    total=st.integers(1, 1000),
    step=st.integers(0, 2000),
)
def test_a_factor_is_always_within_0_and_1(scheduler, warmup, smallest, total, step):
    preset = dataclasses.replace(
        BASE,
        learning_rate_scheduler=scheduler,
        learning_rate_warmup_steps=warmup,
        learning_rate_min_factor=smallest,
    )
    assert -1e-12 <= learning_rate_factor(preset, step, total) <= 1 + 1e-12


@given(seed=st.integers(-(2**40), 2**40), step=st.integers(0, 2**40))
def test_a_seed_is_one_that_torch_takes_and_differs_by_purpose(seed, step):
    assert 0 <= step_seed(seed, step, "noise") < 2**63
    assert step_seed(seed, step, "noise") != step_seed(seed, step, "sigmas")
    assert step_seed(seed, step, "noise") != step_seed(seed, step + 1, "noise")


def test_noise_is_that_of_the_batch_whatever_was_drawn_before():
    first = torch.randn(8, generator=step_generator(42, 7, "noise"))
    torch.randn(100)
    assert torch.equal(first, torch.randn(8, generator=step_generator(42, 7, "noise")))
    assert not torch.equal(first, torch.randn(8, generator=step_generator(42, 8, "noise")))


def test_noise_levels_keep_the_presets_bounds_and_shift():
    preset = dataclasses.replace(BASE, min_noising_strength=0.2, max_noising_strength=0.6, timestep_shift=5.0)
    sigmas = torch.cat([draw_sigmas(preset, 50, step) for step in range(20)])
    assert sigmas.min() >= 0.2
    assert sigmas.max() <= 0.6
    unshifted = torch.cat([draw_sigmas(BASE, 50, step) for step in range(20)])
    shifted = torch.cat([draw_sigmas(dataclasses.replace(BASE, timestep_shift=5.0), 50, s) for s in range(20)])
    assert shifted.mean() > unshifted.mean() + 0.15


def test_so_many_captions_are_dropped_and_replaced_by_the_empty_prompt():
    preset = dataclasses.replace(BASE, caption_dropout=0.3)
    embeddings, empty = torch.ones(1000, 4, 2), torch.zeros(4, 2)
    kept = drop_captions(preset, embeddings, empty, 0)[:, 0, 0]
    assert 0.2 < 1 - kept.mean() < 0.4
    assert torch.equal(kept, drop_captions(preset, embeddings, empty, 0)[:, 0, 0])
    assert drop_captions(preset, embeddings, None, 0) is embeddings


@pytest.mark.parametrize("name", ["ADAMW", "ADAM", "SGD"])
def test_the_optimizer_is_the_one_named_with_its_settings(name):
    settings = OptimizerSettings(name=name, beta1=0.8, eps=1e-6, weight_decay=0.3, momentum=0.7, amsgrad=True)
    optimizer = make_optimizer(settings, [torch.nn.Parameter(torch.ones(2))], 0.5)
    assert type(optimizer).__name__.upper() == name
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.3)
    if name == "SGD":
        assert group["momentum"] == 0.7
    else:
        assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.8, 0.999), 1e-6, True)
