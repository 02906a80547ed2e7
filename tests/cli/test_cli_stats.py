"""`wan stats`: the last run of a workspace, however it is named and however it ended."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.health import RUN_DATABASE_NAME, RunDatabase


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with one finished run: two samples, of which one was skipped, and a step."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    with RunDatabase(folder / RUN_DATABASE_NAME) as database:
        run = database.start_run("train", {"concepts": [{"path": "/clips"}]})
        run.sample("/clips/good.mp4", "valid")
        run.sample("/clips/[red]bad[green].mp4", "skipped", module="probe", reason="it is empty", fix="copy it again")
        run.counters({"cache_hits": 3, "cache_misses": 1})
        run.step(7, 0.25, 1e-3, 0.5)
        run.module_time("RobustVideoLoader", 2.0, 8)
        run.event("finished", "the run [b]finished[/b]")
        run.finish()
    return folder


def test_the_run_is_shown(wan: Any, workspace: Path) -> None:
    result = wan("stats", workspace)
    assert result.exit_code == 0
    for text in (
        str(workspace),
        "1 (train): finished",
        "1 valid, 1 skipped, 0 failed",
        "3 hits, 1 misses (75% hits)",
        "loss 0.2500",
        "[red]bad[green].mp4",
        "it is empty",
        "copy it again",
        "RobustVideoLoader",
        "the run [b]finished[/b]",
    ):
        assert text in result.stdout


def test_json_is_all_there_is_on_stdout(wan: Any, workspace: Path) -> None:
    answer = json.loads(wan("stats", workspace, "--json").stdout)
    assert answer["database"] == str(workspace / RUN_DATABASE_NAME)
    assert (answer["state"], answer["valid"], answer["skipped"]) == ("finished", 1, 1)
    assert answer["cache_hit_rate"] == 0.75
    assert answer["skipped_samples"][0]["path"] == "/clips/[red]bad[green].mp4"
    assert answer["modules"][0]["items_per_second"] == 4.0
    assert answer["last_step"]["step"] == 7


def test_json_has_null_for_a_loss_that_is_no_number(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        run = database.start_run("train")
        run.step(1, math.nan, 1e-3, 0.5)
        run.finish("failed")
    answer = json.loads(wan("stats", workspace, "--json").stdout, parse_constant=pytest.fail)
    assert answer["last_step"]["loss"] is None


def test_a_run_that_goes_on_is_shown_as_running(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        run = database.start_run("train")
        run.flush()
        assert "2 (train): running" in wan("stats", workspace).stdout


def test_a_folder_above_the_workspace_will_do(wan: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.parent)
    assert "1 (train): finished" in wan("stats").stdout


def test_the_preset_will_do(wan: Any, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps({"workspace_dir": "workspace"}), encoding="utf-8")
    assert "1 (train): finished" in wan("stats", preset).stdout


def test_no_run_is_a_usage_error_with_a_way_out(wan: Any, tmp_path: Path) -> None:
    result = wan("stats", tmp_path)
    assert result.exit_code == 2
    assert "there is no run" in result.stderr
    assert str(tmp_path) in result.stderr


def test_a_preset_that_was_never_trained_says_so(wan: Any, clips: Path, write_preset: Callable[..., Path]) -> None:
    result = wan("stats", write_preset(clips))
    assert result.exit_code == 2
    assert "there is no run" in result.stderr


def test_a_damaged_database_is_named(wan: Any, workspace: Path) -> None:
    database = workspace / RUN_DATABASE_NAME
    for path in workspace.iterdir():
        path.unlink()
    database.write_bytes(b"not a database at all " * 100)
    result = wan("stats", workspace)
    assert result.exit_code == 2
    assert str(database) in result.stderr
    assert "Traceback" not in result.stderr


def test_the_database_is_left_as_it_was(wan: Any, workspace: Path) -> None:
    before = (workspace / RUN_DATABASE_NAME).read_bytes()
    wan("stats", workspace)
    assert (workspace / RUN_DATABASE_NAME).read_bytes() == before
