"""A training that will not fit is told so before it loads its model (M12)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wan_fixes.models import load_manifest
from wan_fixes.models.fit import check_of, wanted_of
from wan_fixes.models.hardware import Hardware

PRESETS = sorted((Path(__file__).parents[2] / "wan_fixes" / "hosts" / "onetrainer" / "presets").rglob("*.json"))
GB = 10**9
T2V = "WAN_2_1_T2V_14B"
CONFIG = {
    "training_method": "LORA",
    "resolution": "832x480",
    "frames": "49",
    "batch_size": 1,
    "lora_rank": 16,
    "gradient_checkpointing": "ON",
    "transformer": {"weight_dtype": "BFLOAT_16"},
    "text_encoder": {"weight_dtype": "BFLOAT_16"},
}


def machine(vram: float) -> Hardware:
    return Hardware("Card", round(vram * GB), round(vram * GB), 200 * GB, 200 * GB)


def test_m12_what_does_not_fit_is_said_with_what_would() -> None:
    check = check_of(T2V, CONFIG, machine(24))
    assert check is not None and check.tried[0].fits is False
    assert any("training step takes about" in issue and "24.0 GB are free" in issue for issue in check.issues)
    assert check.chosen is not None


@pytest.mark.parametrize(
    "changes",
    [{"training_method": "FINE_TUNE"}, {"transformer": {"weight_dtype": "NFLOAT_4"}}],
    ids=["no LoRA", "a type that is not estimated"],
)
def test_m12_what_is_not_estimated_is_not_known(changes: dict[str, object]) -> None:
    assert check_of(T2V, {**CONFIG, **changes}, machine(12)) is None
    assert check_of("STABLE_DIFFUSION_15", CONFIG, machine(12)) is None


def test_m12_what_there_is_enough_for_fits() -> None:
    check = check_of(T2V, CONFIG, machine(80))
    assert check is not None and check.tried[0].fits


@pytest.mark.parametrize(
    ("resolution", "size"),
    [("512", (512, 512)), ("832x480", (832, 480)), ("256, 480x832 ,512", (480, 832)), ("500", (496, 496))],
)
def test_m12_the_largest_resolution_counts(resolution: str, size: tuple[int, int]) -> None:
    wanted = wanted_of({**CONFIG, "resolution": resolution}, load_manifest().find("t2v-14B")[0])
    assert wanted is not None and (wanted.width, wanted.height) == size


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_m12_the_presets_fit_the_cards_that_they_are_named_for(path: Path) -> None:
    """As far as they are LoRAs of types that are estimated."""
    config = json.loads(path.read_text("utf-8"))
    card = float(path.stem.rpartition("GB")[0].rpartition(" ")[2])
    check = check_of(config["model_type"], config, machine(card * 1.024**3))
    if check is not None:
        assert check.estimate.total <= card * 2**30, check.issues


def no_drive(folder: Path) -> int:
    raise FileNotFoundError(2, "No such file or directory", str(folder))


def test_m12_a_drive_that_is_away_leaves_its_space_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("wan_fixes.models.hardware.free_bytes", no_drive)
    found = Hardware.of_this_machine(tmp_path)
    assert found.disk_free is None and found.main_memory_free
