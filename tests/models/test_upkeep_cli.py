"""The commands that look after models, as somebody types them (M9, M10, M11, M16, M17)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.cli.console import ExitCode

from .command import output_of
from .hub_server import Hub
from .test_ensure import LARGE, whole
from .test_nearby import write_model
from .test_repair import spoil
from .world import PART, REPOSITORY, content_of, some_bytes

Capture = pytest.CaptureFixture[str]
FOLDER = Path("wan21") / "tiny@1.0.0-original"


def json_of(capsys: Capture, *arguments: str, code: int = ExitCode.OK) -> Any:
    found, out, err = output_of(capsys, *arguments, "--json")
    assert found == code, err
    return json.loads(out)


def test_m17_gc_shows_first_and_removes_with_yes(cli_root: Path, capsys: Capture) -> None:
    output_of(capsys, "ensure", "tiny")
    code, out, _ = output_of(capsys, "gc", "--older-than", "0h")
    assert code == ExitCode.OK and "nothing was removed" in out and "tiny@1.0.0" in out
    assert json_of(capsys, "gc", "--older-than", "0h", "--dry-run", "--yes")["bytes_reclaimed"] == 0
    assert (cli_root / FOLDER).is_dir()
    done = json_of(capsys, "gc", "--older-than", "0h", "--yes")
    assert [one["removed"] for one in done["planned"]] == [True] and done["bytes_reclaimed"] > 0
    assert not (cli_root / FOLDER).exists()
    assert "nothing can go" in output_of(capsys, "gc")[1]


def test_m17_a_pinned_model_stays(cli_root: Path, capsys: Capture) -> None:
    output_of(capsys, "ensure", "tiny")
    assert json_of(capsys, "pin", "tiny") == {"name": "tiny@1.0.0#original", "pinned": True}
    kept = json_of(capsys, "gc", "--older-than", "0h", "--yes")
    assert [one["why"] for one in kept["kept"]] == ["pinned"] and kept["planned"] == []
    assert "may be removed again" in output_of(capsys, "unpin", "tiny")[1]
    assert len(json_of(capsys, "gc", "--older-than", "0h")["planned"]) == 1


def test_m17_repair_mends_and_says_so(cli_root: Path, hub: Hub, capsys: Capture) -> None:
    output_of(capsys, "ensure", "tiny")
    spoil(cli_root / FOLDER / LARGE, 3)
    hub.served.clear()
    code, out, _ = output_of(capsys, "repair")
    assert code == ExitCode.OK and "COMPLETE" in out
    assert content_of(cli_root / FOLDER) == whole()


def test_m17_what_models_take_on_the_disk(cli_root: Path, capsys: Capture) -> None:
    output_of(capsys, "ensure", "tiny")
    found = json_of(capsys, "cache-info")
    assert found["bytes"] == sum(map(len, whole().values())) == found["models"][0]["bytes"]
    assert (found["old_versions"], found["unfinished"]) == (0, 0)
    code, out, _ = output_of(capsys, "cache-info")
    assert code == ExitCode.OK and "tiny@1.0.0" in out
    assert "no file is there twice" in output_of(capsys, "dedup")[1]


def test_m17_updates_are_found_taken_and_undone(cli_root: Path, hub: Hub, capsys: Capture) -> None:
    output_of(capsys, "ensure", "tiny")
    assert "up to date" in output_of(capsys, "check-updates")[1]
    assert "up to date" in output_of(capsys, "update", "tiny")[1]
    hub.repositories[REPOSITORY].files[LARGE] = some_bytes(PART, 5)
    [info] = json_of(capsys, "check-updates", "tiny")["models"]
    assert (info["is_available"], info["changed"], info["bytes_needed"]) == (True, [LARGE], PART)
    code, out, _ = output_of(capsys, "update", "tiny", "--strategy", "parallel")
    assert code == ExitCode.OK and LARGE in out
    assert (cli_root / FOLDER / LARGE).read_bytes() == some_bytes(PART, 5)
    assert json_of(capsys, "rollback", "tiny")["change"]["action"] == "rollback"
    assert content_of(cli_root / FOLDER) == whole()
    assert [change["action"] for change in json_of(capsys, "history", "tiny")["changes"]] == ["update", "rollback"]
    code, _, err = output_of(capsys, "update", "tiny", "--strategy", "bold")
    assert code == ExitCode.USAGE and "conservative" in err
    code, _, err = output_of(capsys, "rollback", "tiny", "feedbeef")
    assert code == ExitCode.FAILED and "wan models history" in err


def test_m17_a_folder_is_taken_over_and_given_back(cli_root: Path, tmp_path: Path, capsys: Capture) -> None:
    mine = write_model(tmp_path / "mine" / "Tiny-Diffusers")
    code, out, _ = output_of(capsys, "migrate", str(mine.parent))
    assert code == ExitCode.OK and "nothing was changed" in out
    assert not (cli_root / FOLDER).exists()
    assert json_of(capsys, "migrate", str(mine.parent), "--yes")["adopted"][0]["missing"] == []
    assert (cli_root / FOLDER / LARGE).samefile(mine / LARGE)
    assert json_of(capsys, "migrate", "--undo", "tiny")["folder"] == str(mine)
    assert content_of(mine) == whole()
    code, _, err = output_of(capsys, "migrate", str(tmp_path / "nothing"))
    assert code == ExitCode.FAILED and "model_index.json" in err


def test_m15_several_models_and_one_that_cannot_be_had(cli_root: Path, hub: Hub, capsys: Capture) -> None:
    found = json_of(capsys, "ensure", "tiny", "tiny@1.0.0", "--at-once", "2")
    assert [model["state"] for model in found["models"]] == ["COMPLETE", "COMPLETE"]
    code, _, err = output_of(capsys, "ensure", "tiny", "absent")
    assert code == ExitCode.USAGE and "absent" in err
