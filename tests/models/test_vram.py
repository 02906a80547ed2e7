"""How much memory a model takes is estimated from its manifest, and the numbers hang together (M12)."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.models import ErrorCode, ModelError, ModelSpec, load_manifest
from wan_fixes.models.vram import (
    PRECISION_BYTES,
    RUNTIME_BYTES,
    Phase,
    VramEstimate,
    estimate,
    feed_forward_size,
    spatial_multiple,
    token_count,
)
from wan_fixes.wan.latents import latent_shape
from wan_fixes.wan.variants import VARIANTS

from .world import manifest_of

SPECS = tuple(load_manifest().models.values())
BY_BYTES = sorted(PRECISION_BYTES, key=PRECISION_BYTES.__getitem__)

specs = st.sampled_from(SPECS)
settings = st.fixed_dictionaries(
    {
        "precision": st.sampled_from(BY_BYTES),
        "text_encoder_precision": st.sampled_from(BY_BYTES),
        "vae_precision": st.sampled_from(BY_BYTES),
        "autocast": st.booleans(),
        "frames": st.integers(1, 200),
        "height": st.integers(16, 2000),
        "width": st.integers(16, 2000),
        "batch": st.integers(1, 8),
        "lora_rank": st.integers(1, 256),
        "gradient_checkpointing": st.booleans(),
        "offload": st.floats(0.0, 1.0),
        "resident_experts": st.integers(1, 2),
        "training": st.booleans(),
    }
)


def spec_of(name: str) -> ModelSpec:
    return load_manifest().find(name)[0]


def sizes(found: VramEstimate) -> list[int]:
    """All that must not shrink when more is asked for."""
    return [found.total, found.main_memory, *(phase.total for phase in found.phases)]


def none_is_less(more: VramEstimate, less: VramEstimate) -> bool:
    return all(a >= b for a, b in zip(sizes(more), sizes(less), strict=True))


@given(specs, settings, st.sampled_from(["frames", "height", "width", "batch", "lora_rank"]), st.integers(0, 300))
def test_m12_more_of_anything_never_takes_less(
    spec: ModelSpec, given_settings: dict[str, Any], name: str, more: int
) -> None:
    larger = {**given_settings, name: given_settings[name] + more}
    assert none_is_less(estimate(spec, **larger), estimate(spec, **given_settings))


@given(specs, settings, st.sampled_from(["precision", "text_encoder_precision", "vae_precision"]))
def test_m12_a_larger_precision_never_takes_less(spec: ModelSpec, given_settings: dict[str, Any], name: str) -> None:
    found = [estimate(spec, **{**given_settings, name: precision}) for precision in BY_BYTES]
    assert all(none_is_less(more, less) for less, more in pairwise(found))


@given(specs, settings, st.floats(0.0, 1.0))
def test_m12_offloading_more_never_takes_more_of_the_gpu(
    spec: ModelSpec, given_settings: dict[str, Any], offload: float
) -> None:
    less, more = sorted([offload, given_settings["offload"]])
    before, after = (estimate(spec, **{**given_settings, "offload": share}) for share in (less, more))
    assert none_is_less(before, after)
    assert after.main_memory == before.main_memory


@given(specs, settings)
def test_m12_gradient_checkpointing_and_one_expert_at_a_time_never_take_more(
    spec: ModelSpec, given_settings: dict[str, Any]
) -> None:
    found = estimate(spec, **given_settings)
    assert none_is_less(found, estimate(spec, **{**given_settings, "gradient_checkpointing": True}))
    assert none_is_less(found, estimate(spec, **{**given_settings, "resident_experts": 1}))


@given(specs, settings)
def test_m12_the_parts_add_up(spec: ModelSpec, given_settings: dict[str, Any]) -> None:
    found = estimate(spec, **given_settings)
    for phase in found.phases:
        assert phase.total == phase.weights + phase.lora + phase.activations + RUNTIME_BYTES
        assert min(phase.weights, phase.activations) > 0
    assert found.total == max(phase.total for phase in found.phases) == found.peak.total
    assert max(phase.lora for phase in found.phases) == (
        found.lora_weights + found.lora_gradients + found.lora_optimizer
    )
    assert json.loads(json.dumps(found.as_json()))["total"] == found.total


@given(specs, st.integers(0, 50), st.integers(1, 60), st.integers(1, 60))
def test_m12_tokens_are_those_of_the_latents(spec: ModelSpec, groups: int, rows: int, columns: int) -> None:
    known, step = VARIANTS[spec.model_type], spatial_multiple(spec)
    assert step == known.spatial_multiple
    frames, height, width = groups * known.temporal_compression + 1, rows * step, columns * step
    _, latent_frames, *latent_sides = latent_shape(frames, height, width, spatial_compression=step // 2)
    assert token_count(spec, frames, height, width) == latent_frames * math.prod(side // 2 for side in latent_sides)


@pytest.mark.parametrize(
    ("name", "ffn_dim"),
    [
        ("t2v-1.3B", 8960),
        ("t2v-14B", 13824),
        ("i2v-14B", 13824),
        ("t2v-A14B", 13824),
        ("i2v-A14B", 13824),
        ("ti2v-5B", 14336),
    ],
)
def test_m12_the_feed_forward_size_follows_from_the_number_of_parameters(name: str, ffn_dim: int) -> None:
    assert feed_forward_size(spec_of(name)) == pytest.approx(ffn_dim, rel=0.01)


def test_m12_a_14b_lora_is_as_large_as_its_layers_make_it() -> None:
    found = estimate(spec_of("t2v-14B"), lora_rank=16)
    numbers = 40 * 16 * (8 * (5120 + 5120) + 2 * (5120 + 13824))
    assert found.lora_weights == pytest.approx(4 * numbers, rel=0.01)
    assert found.lora_optimizer == 2 * found.lora_weights


def test_m12_of_two_experts_one_is_on_the_gpu_unless_both_are_asked_for() -> None:
    one, both = (estimate(spec_of("t2v-A14B"), resident_experts=count) for count in (1, 2))
    weights_of_one, weights_of_both = (
        next(phase.weights for phase in found.phases if phase.phase is Phase.TRAINING_STEP) for found in (one, both)
    )
    assert weights_of_both == 2 * weights_of_one == one.transformer
    assert one.main_memory == both.main_memory > one.transformer


def test_m12_which_phase_takes_most_hangs_on_the_clip() -> None:
    spec = spec_of("t2v-1.3B")
    assert estimate(spec, frames=5, height=256, width=256).peak.phase is Phase.TEXT_ENCODING
    assert estimate(spec, frames=81, height=720, width=1280).peak.phase is Phase.TRAINING_STEP
    assert estimate(spec, frames=1, height=1280, width=1280).peak.phase is Phase.VAE_ENCODING


def test_m12_defaults_are_the_models_own() -> None:
    spec = spec_of("ti2v-5B")
    assert estimate(spec) == estimate(spec, frames=121, height=704, width=1280)


@pytest.mark.parametrize(
    "wrong",
    [
        {"precision": "int3"},
        {"vae_precision": ""},
        {"frames": 0},
        {"height": -16},
        {"batch": 0},
        {"lora_rank": -1},
        {"offload": 1.01},
        {"offload": float("nan")},
        {"resident_experts": 0},
    ],
    ids=str,
)
def test_m12_a_setting_that_is_none_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="no memory can be estimated") as caught:
        estimate(spec_of("t2v-1.3B"), **wrong)
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert caught.value.fix


def test_m12_a_manifest_without_a_size_is_asked_for_one() -> None:
    spec, _ = manifest_of().find("tiny")
    with pytest.raises(ModelError, match="say which frames"):
        estimate(spec)
    assert estimate(spec, frames=5, height=64, width=64).tokens == 2 * 4 * 4
