"""The main job of the README: good clips are trained on, bad ones named, and a second run finds all in the cache."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.cli.main import run
from wan_fixes.health import RunDatabase, RunReader
from wan_fixes.health.run_place import run_database_path
from wan_fixes.health.run_records import SampleStatus
from wan_fixes.media import is_video
from wan_fixes.wan.lora import load_lora


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a quickstart that was run twice, and the run database in it."""
    import quickstart

    folder = tmp_path_factory.mktemp("quickstart")
    settings = folder / "settings.json"
    settings.write_text("{}", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAN_FIXES_SETTINGS", str(settings))
        patch.setattr(sys, "argv", ["quickstart.py", str(folder)])
        for _ in range(2):
            patch.chdir(folder)  # restored at the end, since the quickstart changes it
            assert quickstart.main() == 0
    return folder


@pytest.fixture(scope="module")
def runs(quickstart: Path) -> RunReader:
    return RunDatabase.open_readonly(run_database_path(quickstart / "workspace"))


def names(runs: RunReader, run_id: int, status: SampleStatus) -> set[str]:
    return {Path(sample.path).name for sample in runs.samples(run_id, status)}


def test_every_broken_file_is_left_out_and_named_with_a_reason(quickstart: Path, runs: RunReader) -> None:
    broken = {path.name for path in (quickstart / "clips").glob("broken_*") if path.suffix != ".txt"}
    assert len(broken) >= 10
    for run_id in (1, 2):
        assert broken <= names(runs, run_id, "skipped")
        assert all(sample.reason for sample in runs.samples(run_id, "skipped"))


def test_every_good_clip_is_trained_on(quickstart: Path, runs: RunReader) -> None:
    clips = {path.name for path in (quickstart / "clips").iterdir() if is_video(path)}
    good = {name for name in clips if not name.startswith(("broken_", "caption_"))}
    assert len(good) >= 12
    assert good.isdisjoint(names(runs, 1, "skipped") | names(runs, 1, "failed"))
    assert runs.sample_counts(1)["valid"] >= len(good)
    assert runs.step_count(1) == 20


def test_the_second_run_finds_every_sample_in_the_cache(
    quickstart: Path, runs: RunReader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cache", "stats", str(quickstart), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["total"]["entries"]
    first, second = runs.counters_of(1), runs.counters_of(2)
    assert first["cache_misses"] >= entries
    assert second["cache_misses"] == 0
    # Each trained clip asks for its latents and its text. Those of one content share an entry, so there are fewer.
    assert second["cache_hits"] >= 2 * runs.sample_counts(2)["valid"] >= entries
    assert runs.step_count(2) == 20


def test_check_rejects_what_training_leaves_out(
    quickstart: Path, runs: RunReader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quickstart import PRESET

    monkeypatch.chdir(quickstart)
    assert run(["check", str(PRESET), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    rejected = {file["name"] for file in files if file["status"] == "rejected"}
    assert rejected == names(runs, 1, "skipped")


def test_it_leaves_a_lora_and_a_sample_clip(quickstart: Path) -> None:
    assert load_lora(quickstart / "output" / "tiny-lora.safetensors")
    assert list((quickstart / "workspace" / "samples").glob("*.mp4"))
