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
        run.counters({"RobustVideoLoader.seconds": 2.0, "RobustVideoLoader.calls": 8})
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


def test_rows_that_say_nothing_are_left_out(wan: Any, tmp_path: Path) -> None:
    with RunDatabase(tmp_path / RUN_DATABASE_NAME) as database:
        database.start_run("models").finish()
    shown = wan("stats", tmp_path).stdout
    assert "1 (models): finished" in shown
    for row in ("samples", "cache", "memory", "disk", "speed", "steps", "switched off", "ALERT", "left out"):
        assert row not in shown


def test_all_that_a_run_measures_is_shown(wan: Any, tmp_path: Path) -> None:
    with RunDatabase(tmp_path / RUN_DATABASE_NAME) as database:
        run = database.start_run("train")
        run.state("phase", "caching")
        run.state("caches", {"/cache": {"entries": 120, "bytes": 3_400_000_000}})
        run.state("breakers", {"Loader": "open", "Encoder": "closed"})
        run.sample("/clips/a.mp4", "skipped", module="Loader", reason="it is empty", kind="OSError")
        run.sample("/clips/b.mp4", "warning", module="captions", reason="there is none", kind="warning")
        run.counters(
            {
                "cache_written": 12,
                "cache_corruptions": 2,
                "Loader.seconds": 2.0,
                "Loader.calls": 8,
                "Loader.max_seconds": 1.5,
                "module_failures{module=Loader}": 3,
            }
        )
        run.gauges(
            {
                "memory_mb": 3072,
                "peak_memory_mb": 4096,
                "available_mb": 10240,
                "swap_mb": 512,
                "gpu_memory_mb": 9216,
                "read_mb": 2048,
                "written_mb": 200,
            }
        )
        run.flush()
        shown = wan("stats", tmp_path).stdout
        run.finish()
        after = wan("stats", tmp_path).stdout
    for row in (
        "now           caching",
        "1 by Loader (OSError)",
        "1 by captions",
        "12 made; holds 120 entries, 3.4 GB; 2 found damaged",
        "3.0 GB, at most 4.0 GB; GPU 9.0 GB; 10.0 GB free; swap 512 MB",
        "2.0 GB read, 200 MB written",
        "switched off  Loader",
    ):
        assert row in shown
    header, bar, cells = shown.splitlines()[-3:]
    assert header.split() == ["module", "┃", "time", "┃", "items", "┃", "items/s", "┃", "longest", "┃", "failed"]
    assert cells.split("│")[-2:] == ["   1.5 s ", "      3"], bar
    assert "at last       caching" in after
    assert "memory        at most 4.0 GB" in after


def alert(message: str) -> dict[str, Any]:
    words = {"kind": "memory", "cause": "", "message": message, "fix": "close [b]programs[/b]"}
    return {**words, "value": 1.0, "threshold": 0.9, "since": 1_700_000_000.0}


def test_alerts_come_first_and_are_marked(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        run = database.start_run("train")
        run.state("alerts", [alert("memory is [red]short\x1b[2J")])
        run.flush()
        lines = wan("stats", workspace).stdout.splitlines()
    assert lines[1].startswith("! ALERT")
    assert "memory is [red]short\\x1b[2J" in lines[1]
    assert "close [b]programs[/b]" in "".join(lines[2:4])


def test_a_run_of_an_earlier_number_is_shown(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        database.start_run("check").finish("failed")
    assert "2 (check): failed" in wan("stats", workspace).stdout
    assert "1 (train): finished" in wan("stats", workspace, "--run", "1").stdout
    assert json.loads(wan("stats", workspace, "--run", "1", "--json").stdout)["run_id"] == 1


def test_a_number_that_there_is_not_is_a_usage_error(wan: Any, workspace: Path) -> None:
    result = wan("stats", workspace, "--run", "7")
    assert result.exit_code == 2
    assert "there is no run 7" in result.stderr
    assert "the last runs there are 1" in result.stderr


def test_of_many_that_were_left_out_the_first_are_shown(wan: Any, tmp_path: Path) -> None:
    with RunDatabase(tmp_path / RUN_DATABASE_NAME) as database, database.start_run("train") as run:
        for number in range(1000):
            run.sample(f"/clips/{number}.mp4", "skipped", reason="it is empty")
    shown = wan("stats", tmp_path).stdout
    assert "and 995 more: `wan errors` shows what they have in common" in shown
    assert len(shown.splitlines()) < 30


def test_the_runs_of_a_workspace_are_listed(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        database.start_run("cache").finish("failed")
    latest, first = [line.split() for line in wan("runs", workspace).stdout.splitlines()[-2:]]
    assert (latest[:2], latest[-1]) == (["2", "cache"], "failed")
    assert (first[:2], first[-4:]) == (["1", "train"], ["finished", "1", "1", "1"])
    answer = json.loads(wan("runs", workspace, "--json").stdout)
    assert [(run["id"], run["status"], run["steps"]) for run in answer["runs"]] == [
        (2, "failed", 0),
        (1, "finished", 1),
    ]
    assert answer["runs"][1]["samples"] == {"valid": 1, "skipped": 1, "failed": 0, "warning": 0}


@pytest.mark.parametrize("concepts", [None, "text", [None, 3, {"path": None}, {}], {"path": "/clips"}])
def test_what_was_left_out_is_shown_of_a_run_whose_concepts_are_in_a_file(
    wan: Any, tmp_path: Path, concepts: Any
) -> None:
    config = {"concepts": concepts}
    with RunDatabase(tmp_path / RUN_DATABASE_NAME) as database, database.start_run("train", config) as run:
        run.sample("/clips/bad.mp4", "skipped", module="probe", reason="it is empty", fix="copy it again")
    result = wan("stats", tmp_path)
    assert result.exit_code == 0 and "/clips/bad.mp4" in result.stdout
