"""Inside OneTrainer a configuration is looked over when its training starts: errors refuse it, warnings are told."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer import configuration
from wan_fixes.hosts.onetrainer.configuration import preflight_or_refuse


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings' file; the working folder is that of the checkout."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.json"
    file.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("WAN_FIXES_SETTINGS", str(file))
    (tmp_path / "clips").mkdir()
    for number in range(9):
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(b"")
        (tmp_path / "clips" / f"{number}.txt").write_text("a caption", encoding="utf-8")
    return file


def config(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "WAN_2_2_T2V_A14B",
        "training_method": "LORA",
        "base_model_name": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "output_model_destination": "models/lora.safetensors",
        "workspace_dir": "workspace",
        "cache_dir": "cache",
        "concepts": [{"path": "clips"}],
        "resolution": "480",
        "frames": "33",
        "learning_rate": 1e-4,
        "timestep_shift": 12.0,
        "train_device": "cpu",
        **changes,
    }


def test_what_is_good_is_passed_without_a_word(settings: Path, caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    assert preflight_or_refuse(config(), said.append) == []
    assert (said, caplog.records) == ([], [])


def test_all_errors_are_in_the_refusal_and_the_window_shows_the_first(settings: Path) -> None:
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        preflight_or_refuse(config(frames="32", concepts=[{"path": "clipz"}]), said.append)
    assert "frames is" in caught.value.reason and "clips" in caught.value.fix
    (line,) = said
    assert line.startswith("the configuration cannot be trained: ")


def test_warnings_are_logged_and_returned(settings: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "wan_fixes"):
        (found,) = preflight_or_refuse(config(train_dtype="FLOAT_16"), lambda _: None)
    assert found.field == "train_dtype" and [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("switch", ["enabled", "check_configuration"])
def test_what_is_switched_off_looks_at_nothing(settings: Path, switch: str) -> None:
    settings.write_text(json.dumps({switch: False}), encoding="utf-8")
    assert preflight_or_refuse(config(frames="32"), lambda _: None) == []


def test_settings_that_cannot_be_read_leave_onetrainer_as_it_is(
    settings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings.write_text("{", encoding="utf-8")
    assert preflight_or_refuse(config(frames="32"), lambda _: None) == []
    assert "is not checked" in caplog.text


def test_a_fault_of_a_check_stops_no_training(
    settings: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(configuration, "check_config", broken)
    assert preflight_or_refuse(config(), lambda _: None) == []
    assert "OneTrainer goes on" in caplog.text
