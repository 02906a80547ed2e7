"""Settings that are allowed one by one and harm together are told, with what to set instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preflight.conftest import Check, only
from wan_fixes.models.hardware import Hardware
from wan_fixes.preflight import check_config
from wan_fixes.settings import Settings

TWO_EXPERTS = {
    "model_type": "WAN_2_2_T2V_A14B",
    "base_model_name": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "timestep_shift": 12.0,
}
OFF = {"train": False}
GB = 10**9


def machine(vram: float, main_memory: float = 200) -> Hardware:
    return Hardware("Card", round(vram * GB), round(vram * GB), round(main_memory * GB), 200 * GB)


def test_nothing_left_to_train_is_an_error(check: Check) -> None:
    found = only(check(transformer=OFF), "trained_parts", "error")
    assert found.correction is not None and found.correction.field == "transformer.train"
    found = only(check(**TWO_EXPERTS, transformer=OFF, transformer_2=OFF), "trained_parts", "error")
    assert found.correction is None  # which of them is meant, only the user knows
    assert check(**TWO_EXPERTS, transformer=OFF) == []
    only(check(**TWO_EXPERTS, transformer={"include": False}, transformer_2={"include": False}), "trained_parts")


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 0.5), (0.9, 0.1), (-0.1, 1), (0, 1.1), ("x", 1), (0, [])], ids=lambda value: str(value)
)
def test_noise_levels_are_two_numbers_of_which_the_first_is_smaller(check: Check, low: Any, high: Any) -> None:
    only(check(min_noising_strength=low, max_noising_strength=high), "noise_bounds", "error")


def test_noise_levels_leave_something_to_each_expert_that_is_trained(check: Check) -> None:
    assert (
        only(check(**TWO_EXPERTS, max_noising_strength=0.8), "noise_bounds", "warning").field == "max_noising_strength"
    )
    assert check(**TWO_EXPERTS, max_noising_strength=0.8, transformer=OFF) == []
    only(check(**TWO_EXPERTS, max_noising_strength=0.8, transformer_2=OFF), "noise_bounds", "error")
    only(check(**TWO_EXPERTS, min_noising_strength=0.9, transformer=OFF), "noise_bounds", "error")


@pytest.mark.parametrize(
    ("field", "value", "severity", "correction"),
    [
        ("training_method", "EMBEDDING", "error", None),
        ("dynamic_timestep_shifting", True, "error", False),
        ("timestep_distribution", "SIGMOID", "error", None),
        ("timestep_shift", 0, "error", None),
        ("timestep_shift", "x", "error", None),
        ("timestep_shift", 0.5, "warning", None),
        ("timestep_shift", 30, "warning", None),
        ("train_dtype", "FLOAT_16", "warning", "BFLOAT_16"),
        ("latent_caching", False, "warning", None),
        ("masked_training", True, "warning", None),
    ],
)
def test_single_settings_that_wan_does_not_bear(
    check: Check, field: str, value: Any, severity: str, correction: Any
) -> None:
    (found,) = check(**{field: value})
    assert (found.field, found.severity) == (field, severity)
    assert (None if found.correction is None else found.correction.value) == correction


def test_a_switch_for_the_text_encoder_is_told_and_corrected(check: Check) -> None:
    found = only(check(text_encoder={"train": True}), "text_encoder", "warning")
    assert found.correction is not None and found.correction.value is False
    assert check(text_encoder={"train": False}) == check(text_encoder={}) == []


def test_offloaded_layers_of_the_text_encoder_want_one_thread(check: Check, check_standalone: Check) -> None:
    encoder = {"offload_fraction": 0.5}
    assert only(check(text_encoder=encoder), "offloaded_encoder", "error").correction is not None  # 2 is the default
    only(check_standalone(text_encoder=encoder), "offloaded_encoder", "warning")  # which offloads nothing
    assert check(text_encoder=encoder, dataloader_threads=1) == []


def test_a_layer_filter_and_its_preset_go_together(check: Check) -> None:
    assert only(check(layer_filter="attn1"), "layer_filter", "warning").correction is not None
    assert check(layer_filter="attn1", layer_filter_preset="custom") == []
    assert only(check(layer_filter_preset="attn-mlp"), "layer_filter", "warning").correction is None
    assert check(layer_filter="", layer_filter_preset="full") == []


def test_masked_training_with_a_mask_is_good(check: Check, tmp_path: Path) -> None:
    (tmp_path / "clips" / "00-masklabel.png").write_bytes(b"")
    assert check(masked_training=True) == []


def test_stocks_own_cache_is_told_to_go_stale(config: dict[str, Any], tmp_path: Path) -> None:
    stock = Settings(validate_pipelines=False)
    kept = {**config, "clear_cache_before_training": False}
    assert only(check_config(kept, base=tmp_path, settings=stock), "stale_cache", "warning").correction is not None
    assert check_config(config, base=tmp_path, settings=stock) == []
    assert check_config(kept, base=tmp_path) == []


def test_what_does_not_fit_the_gpu_is_a_warning_with_what_would(config: dict[str, Any], tmp_path: Path) -> None:
    large = {
        **config,
        "model_type": "WAN_2_1_T2V_14B",
        "base_model_name": "t2v-14B",
        "resolution": "832x480",
        "frames": 50,  # no length for WAN, which is said by itself
    }
    found = check_config(large, base=tmp_path, gpu=machine(24))
    assert [(f.rule, f.severity) for f in found] == [("frames", "error"), ("memory", "warning")]
    assert "24.0 GB are free" in found[1].what and "t2v-1.3B" in found[1].fix and "50 frames" not in found[1].what
    assert [f.rule for f in check_config(large, base=tmp_path, gpu=machine(80))] == ["frames"]
    assert [f.rule for f in check_config({**large, "train_device": "cpu"}, base=tmp_path, gpu=machine(24))] == [
        "frames"
    ]
    (scarce,) = check_config({**large, "frames": 49}, base=tmp_path, gpu=machine(80, main_memory=10))
    assert "main memory" in scarce.what and scarce.field == "transformer.weight_dtype"


def test_a_machine_of_which_nothing_is_known_stands_against_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    assert check_config(config, base=tmp_path, gpu=Hardware()) == []
