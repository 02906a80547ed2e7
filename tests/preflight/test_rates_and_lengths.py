"""Learning rates, the LoRA's rank and alpha, and how long a run is, where they teach nothing or destroy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.conftest import Check, make_clips, only
from wan_fixes.preflight import check_config
from wan_fixes.settings import Settings


@pytest.mark.parametrize("rate", [0, -1e-4, "fast", [], "0", float("nan"), True])
def test_a_rate_that_is_no_number_above_0_is_an_error(check: Check, rate: Any) -> None:
    assert only(check(learning_rate=rate), "learning_rates", "error").field == "learning_rate"


@pytest.mark.parametrize(
    ("rate", "method", "severity"),
    [
        (1.0, "LORA", "error"),
        (0.01, "LORA", "warning"),
        (1e-3, "LORA", None),
        (1e-5, "LORA", None),
        (3e-6, "LORA", "warning"),
        (0.2, "FINE_TUNE", "error"),
        (1e-3, "FINE_TUNE", "warning"),
        (1e-5, "FINE_TUNE", None),
        (1e-7, "FINE_TUNE", None),
    ],
)
def test_what_is_usual_depends_on_what_is_trained(check: Check, rate: float, method: str, severity: Any) -> None:
    found = check(learning_rate=rate, training_method=method)
    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_an_expert_has_its_own_rate(check: Check) -> None:
    two = {"model_type": "WAN_2_2_T2V_A14B", "base_model_name": "Wan-AI/Wan2.2-T2V-A14B-Diffusers"}
    found = only(check(**two, transformer_2={"learning_rate": 0}), "learning_rates", "error")
    assert found.field == "transformer_2.learning_rate"
    assert check(**two, transformer_2={"learning_rate": 0, "train": False}) == []
    assert only(check(transformer={"learning_rate": 1}), "learning_rates").field == "transformer.learning_rate"
    assert check(transformer={"learning_rate": 1e-4}, learning_rate=0) == []


def test_of_other_model_types_parts_with_rates_of_their_own_leave_the_common_one_unused(check: Check) -> None:
    flux = {"model_type": "FLUX_DEV_1", "base_model_name": "black-forest-labs/FLUX.1-dev", "learning_rate": 1.0}
    only(check(**flux), "learning_rates", "error")
    assert check(**flux, transformer={"learning_rate": 1e-4}) == []


@pytest.mark.parametrize("optimizer", ["PRODIGY", "DADAPT_ADAM"])
def test_an_optimizer_that_finds_its_rate_wants_a_factor_of_1(check: Check, optimizer: str) -> None:
    chosen = {"optimizer": {"optimizer": optimizer}}
    assert check(**chosen, learning_rate=1) == []
    found = only(check(**chosen, learning_rate=1e-4), "learning_rates", "warning")
    assert found.correction is not None and found.correction.value == 1.0


def test_nothing_is_said_of_rates_that_the_optimizer_gives_another_meaning(check: Check) -> None:
    assert check(optimizer={"optimizer": "SGD"}, learning_rate=0.5) == []
    assert check(optimizer={"optimizer": "ADAFACTOR", "relative_step": True}, learning_rate=1) == []


@pytest.mark.parametrize("rank", [0, -4, "large", 1.5, []])
def test_a_rank_is_at_least_1(check: Check, rank: Any) -> None:
    assert only(check(lora_rank=rank), "rank_and_alpha", "error").field == "lora_rank"
    assert check(lora_rank=rank, training_method="FINE_TUNE", learning_rate=1e-5) == []


@pytest.mark.parametrize(
    ("alpha", "severity"), [(0, "error"), (-1, "error"), ("x", "error"), (128, "warning"), (1, None), (32, None)]
)
def test_alpha_neither_silences_nor_multiplies(check: Check, alpha: Any, severity: Any) -> None:
    assert [f.severity for f in check(lora_alpha=alpha)] == ([] if severity is None else [severity])


@pytest.mark.parametrize("field", ["epochs", "batch_size", "gradient_accumulation_steps", "dataloader_threads"])
@pytest.mark.parametrize("value", [0, -1, "x", 1.5, {}, False, float("inf"), 10**400])
def test_counts_are_whole_numbers_of_at_least_1(check: Check, field: str, value: Any) -> None:
    assert [(f.rule, f.field) for f in check(**{field: value})] == [("counts", field)]


def test_a_batch_takes_no_more_than_an_epoch_has(check: Check) -> None:
    assert "an epoch has 12" in only(check(batch_size=13, epochs=400), "large_batch", "warning").what
    assert check(batch_size=12, epochs=400) == []
    twice = [{"path": "clips", "balancing": 2}]
    assert check(batch_size=24, epochs=400, concepts=twice) == []
    few = [{"path": "clips", "balancing": 3, "balancing_strategy": "SAMPLES"}]
    assert "an epoch has 3" in only(check(batch_size=4, epochs=400, concepts=few), "large_batch").what


def test_the_old_name_for_balancing_counts_too(check: Check) -> None:
    assert check(batch_size=24, epochs=400, concepts=[{"path": "clips", "repeats": 2}]) == []
    both = [{"path": "clips", "balancing": 1, "repeats": 2}]
    only(check(batch_size=24, epochs=400, concepts=both), "large_batch", "warning")


def test_where_a_clip_gives_several_samples_nothing_is_counted(config: dict[str, Any], tmp_path: Path) -> None:
    chunks = Settings(frame_window="chunks")
    assert check_config({**config, "batch_size": 13, "epochs": 400}, base=tmp_path, settings=chunks) == []


def test_the_weights_change_at_least_once_and_the_warm_up_ends(check: Check, tmp_path: Path) -> None:
    make_clips(tmp_path / "few", count=4)
    short = {"concepts": [{"path": "few"}], "epochs": 10}  # 40 batches
    found = check(**short)
    assert (
        "rises for 200 batches, the default, and the whole training has 40"
        in only(found, "long_warmup", "warning").what
    )
    assert check(**short, learning_rate_warmup_steps=0.1) == []
    assert check(**short, learning_rate_warmup_steps=39) == []
    only(check(**short, learning_rate_warmup_steps=0, gradient_accumulation_steps=41), "long_accumulation", "warning")
    assert check(**short, learning_rate_warmup_steps=0, gradient_accumulation_steps=40) == []


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.floats(1e-5, 1e-3), rank=st.integers(1, 256), share=st.floats(0.05, 2), batch=st.integers(1, 12))
def test_whatever_people_usually_set_has_no_finding(
    tmp_path: Path, config: dict[str, Any], rate: float, rank: int, share: float, batch: int
) -> None:
    changes = {"learning_rate": rate, "lora_rank": rank, "lora_alpha": rank * share, "batch_size": batch, "epochs": 300}
    assert check_config({**config, **changes}, base=tmp_path) == []
