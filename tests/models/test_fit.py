"""A training that will not fit is told so before it loads its model (M12)."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from wan_fixes.models import load_manifest
from wan_fixes.models.fit import check_of, wanted_of, warn_if_too_large
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


def test_m12_what_does_not_fit_is_said_with_what_would(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hardware, "of_this_machine", lambda folder: machine(24))
    with caplog.at_level(logging.INFO):
        warn_if_too_large(T2V, CONFIG)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "training step takes about" in record.message and "24.0 GB are free" in record.message
    assert "what would fit: " in record.message


@pytest.mark.parametrize(
    ("vram", "changes"),
    [(80, {}), (12, {"training_method": "FINE_TUNE"}), (12, {"transformer": {"weight_dtype": "NFLOAT_4"}})],
    ids=["enough", "no LoRA", "a type that is not estimated"],
)
def test_m12_nothing_is_said_of_what_fits_or_is_not_known(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, vram: float, changes: dict[str, object]
) -> None:
    monkeypatch.setattr(Hardware, "of_this_machine", lambda folder: machine(vram))
    warn_if_too_large(T2V, {**CONFIG, **changes})
    warn_if_too_large("STABLE_DIFFUSION_15", CONFIG)
    assert caplog.records == []


def test_m12_nothing_is_said_where_there_is_no_gpu(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hardware, "of_this_machine", lambda folder: Hardware(main_memory_free=200 * GB))
    warn_if_too_large(T2V, CONFIG)
    assert caplog.records == []


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


@pytest.mark.parametrize("fault", [StopIteration(), RuntimeError("of ours"), PermissionError(13, "Permission denied")])
def test_m12_advice_that_cannot_be_given_ends_no_training(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def broken(folder: Path) -> Hardware:
        raise fault

    monkeypatch.setattr(Hardware, "of_this_machine", broken)
    with caplog.at_level(logging.INFO, "wan_fixes"):
        warn_if_too_large(T2V, CONFIG)
    assert "is not known" in caplog.text
