"""`wan train`: what a user sees of a run, how it ends, and with which exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from painted import paint_frame

from wan_fixes.health import RunDatabase
from wan_fixes.hosts.standalone import trainer
from wan_fixes.settings import SETTINGS_VARIABLE
from wan_fixes.wan.lora import load_lora

WritePreset = Callable[..., Path]


@pytest.fixture
def messy(clips: Path) -> Path:
    """The folder of clips with a second good one, which has no caption, and an empty one."""
    from clips import write_clip

    write_clip(clips / "second.mp4", (paint_frame(n, width=64, height=48, hue=0.5) for n in range(30)))
    (clips / "[red]empty[green].mp4").write_bytes(b"")
    return clips


def test_a_run_ends_with_what_was_trained_and_left_out(
    wan: Any, messy: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    preset = write_preset(messy, no_such_field=1)
    result = wan("train", "--config", preset)
    assert result.exit_code == 0, result.stderr
    for text in (
        "no_such_field",
        "[red]empty[green].mp4",
        "the file is empty",
        "2 trained on, 1 left out, 0 failed",
        "2, now at 2",
        "0 hits, 4 made anew",
        "total",
        f"  {tmp_path / 'lora.safetensors'} (",
    ):
        assert text in result.stdout
    assert "2 samples are valid" in result.stderr
    assert load_lora(tmp_path / "lora.safetensors")
    tables = result.stdout[: result.stdout.index("files written")]
    assert max(map(len, tables.splitlines())) <= 80

    again = wan("train", "--config", preset)
    assert "4 hits, 0 made anew" in again.stdout
    assert "a new one begins" in again.stderr

    stats = wan("stats", preset)
    assert stats.exit_code == 0
    assert "2 (train): finished" in stats.stdout
    assert "[red]empty[green].mp4" in stats.stdout
    cached = wan("cache", "stats", preset, "--json")
    assert '"entries": 4' in cached.stdout


def test_a_run_cut_short_goes_on_unless_it_shall_be_fresh(wan: Any, messy: Path, write_preset: WritePreset) -> None:
    preset = write_preset(messy, epochs=2)
    first = wan("train", "--config", preset, "--max-steps", "1")
    assert first.exit_code == 0, first.stderr
    assert "the same command goes on from here" in first.stdout
    second = wan("train", "--config", preset, "--max-steps", "3")
    assert "2, now at 3, going on from 1" in second.stdout
    fresh = wan("train", "--config", preset, "--fresh", "--max-steps", "1")
    assert "1, now at 1" in fresh.stdout
    assert "going on" not in fresh.stdout


def test_the_output_can_be_named(wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path) -> None:
    named = tmp_path / "new folder" / "named.safetensors"
    result = wan("train", "--config", write_preset(clips), "--output", named)
    assert result.exit_code == 0, result.stderr
    assert named.is_file()
    assert not (tmp_path / "lora.safetensors").exists()


@pytest.mark.parametrize("name", ["lora.pt", "lora", "."])
def test_an_output_that_is_no_safetensors_file_is_a_usage_error(
    wan: Any, clips: Path, write_preset: WritePreset, name: str
) -> None:
    result = wan("train", "--config", write_preset(clips), "--output", name)
    assert result.exit_code == 2
    assert ".safetensors" in result.stderr


def test_nothing_usable_exits_with_3(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "good.mp4").write_bytes(b"")
    result = wan("train", "--config", write_preset(clips))
    assert result.exit_code == 3
    assert "the file is empty" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_concept_without_files_exits_with_3_before_the_model_is_loaded(
    wan: Any, tmp_path: Path, write_preset: WritePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    empty = tmp_path / "nothing here"
    empty.mkdir()
    result = wan("train", "--config", write_preset(empty))
    assert result.exit_code == 3
    assert str(empty) in result.stderr


def test_an_interrupted_run_exits_with_130_and_stats_say_so(
    wan: Any, clips: Path, write_preset: WritePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "load_model", interrupt)
    preset = write_preset(clips)
    result = wan("train", "--config", preset)
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr
    assert "1 (train): interrupted" in wan("stats", preset).stdout


def test_a_preset_is_required(wan: Any) -> None:
    result = wan("train")
    assert result.exit_code == 2
    assert "--config" in result.stderr


def test_an_unknown_host_is_a_usage_error_that_names_the_known(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    result = wan("train", "--config", write_preset(clips), "--host", "moon")
    assert result.exit_code == 2
    assert "standalone" in result.stderr


def test_all_errors_of_a_configuration_are_named_at_once_and_stop_it(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    result = wan("train", "--config", write_preset(clips, frames=10, lora_alpha=0, workspace_dir="w"))
    assert result.exit_code == 2
    for text in ("the configuration cannot be trained", "frames is 10", "alpha is 0", "set it to 9 or 13"):
        assert text in result.stderr
    assert not (tmp_path / "workspace").exists() and "Traceback" not in result.stderr


def test_a_warning_is_told_once_and_recorded_and_can_be_switched_off(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    preset = write_preset(clips, lora_alpha=64, learning_rate_warmup_steps=0)
    result = wan("train", "--config", preset)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("each step counts 16 times") == 1
    reader = RunDatabase.open_readonly(tmp_path / "workspace" / "runs.sqlite")
    events = [event for event in reader.events(1, after=0) if event.kind == "config_warning"]
    assert "lora_alpha" in [event.facts["field"] for event in events]

    Path(os.environ[SETTINGS_VARIABLE]).write_text('{"check_configuration": false}', encoding="utf-8")
    assert "each step counts" not in wan("train", "--config", preset, "--max-steps", "1").stderr


def test_where_the_output_is_named_the_presets_own_is_not_looked_at(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_text("dear diary", encoding="utf-8")
    preset = write_preset(clips, output_model_destination=str(mine))
    refused = wan("train", "--config", preset)
    assert refused.exit_code == 2 and "is there already" in refused.stderr
    assert wan("train", "--config", preset, "--output", tmp_path / "other.safetensors").exit_code == 0
    assert mine.read_text(encoding="utf-8") == "dear diary"
