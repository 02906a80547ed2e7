"""`wan errors`: what went wrong, put together by cause, with what helps first."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.cli import error_facts
from wan_fixes.errors import SampleError
from wan_fixes.health import RUN_DATABASE_NAME, Run, RunDatabase
from wan_fixes.media import MediaReader


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def record(workspace: Path, *samples: tuple[str, str, str], status: Any = "skipped") -> None:
    """A run in which these were left out: path, reason and fix."""
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database, database.start_run("train") as run:
        run.sample("/clips/good.mp4", "valid")
        put(run, *samples, status=status)


def put(run: Run, *samples: tuple[str, str, str], status: Any = "skipped") -> None:
    for path, reason, fix in samples:
        run.sample(path, status, module="media", reason=reason, fix=fix, kind="SampleError")


def copies(clips: Path, folder: Path, count: int, suffix: str = ".mp4") -> list[Path]:
    """So many copies of the good clip, in a folder of their own."""
    folder.mkdir()
    paths = [folder / f"IMG_{number}{suffix}" for number in range(count)]
    for path in paths:
        shutil.copy(clips / "good.mp4", path)
    return paths


def test_what_shares_a_cause_is_one_pattern_with_folder_codec_and_fix(wan: Any, workspace: Path, clips: Path) -> None:
    paths = copies(clips, workspace / "phone", 4)
    record(workspace, *((str(p), f"damaged at {n / 2} s", "re-encode it") for n, p in enumerate(paths)))
    result = wan("errors", workspace)
    assert result.exit_code == 0
    assert "4 of 5 samples left out" in result.stdout
    assert "1. 4 samples left out: damaged at 0.0-1.5 s" in result.stdout
    assert f"{workspace / 'phone'}: all 4 samples there" in result.stdout
    assert "all 4 lie in phone and are h264 in mp4: re-encode it" in " ".join(result.stdout.split())


def test_json_has_what_a_script_needs(wan: Any, workspace: Path, clips: Path) -> None:
    paths = copies(clips, workspace / "phone", 2)
    record(workspace, *((str(path), "damaged", "re-encode it") for path in paths), ("/gone/a.mov", "damaged", ""))
    answer = json.loads(wan("errors", workspace, "--json").stdout)
    assert answer["samples"] == {"valid": 1, "skipped": 3, "failed": 0, "warning": 0}
    (pattern,) = answer["patterns"]
    assert (pattern["status"], pattern["count"], pattern["cause"]) == ("left out", 3, "damaged")
    assert pattern["folders"] == [
        {"folder": str(workspace / "phone"), "bad": 2, "of": 2},
        {"folder": "/gone", "bad": 1, "of": None},
    ]
    assert pattern["formats"] == {"h264 in mp4": 2}
    assert pattern["do_first"] == "re-encode it"
    assert "paths" not in pattern
    every = json.loads(wan("errors", workspace, "--json", "--all").stdout)
    assert every["patterns"][0]["paths"] == sorted(["/gone/a.mov", *map(str, paths)])


def test_a_file_that_cannot_be_opened_has_no_format(wan: Any, workspace: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (workspace / name).write_bytes(b"no clip at all " * 100)
    record(workspace, *((str(workspace / name), "damaged", "") for name in ("a.mp4", "b.mp4")))
    result = wan("errors", workspace)
    assert result.exit_code == 0
    assert "format" not in result.stdout
    assert result.stderr == ""


def test_a_clip_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    never = threading.Event()

    def hang(_reader: MediaReader, path: str) -> None:
        never.wait()
        raise SampleError("it hung", path=path)

    monkeypatch.setattr(error_facts.MediaReader, "probe", hang)
    assert error_facts.formats_of_files([str(tmp_path / "a.mp4")], seconds=0.1) == {}
    never.set()


def test_where_nothing_went_wrong_it_says_so(wan: Any, workspace: Path) -> None:
    record(workspace)
    result = wan("errors", workspace)
    assert result.exit_code == 0
    assert "nothing was left out, and there are no warnings" in result.stdout


def test_warnings_come_after_what_was_left_out(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database, database.start_run("train") as run:
        put(run, *((f"/clips/{n}.mp4", "no caption", "write one") for n in range(9)), status="warning")
        put(run, ("/clips/bad.mp4", "it is empty", "copy it again"))
    shown = wan("errors", workspace).stdout
    assert shown.index("1 sample left out: it is empty") < shown.index("9 samples with a warning: no caption")


def test_an_earlier_run_is_shown_by_its_number(wan: Any, workspace: Path) -> None:
    record(workspace, ("/clips/bad.mp4", "it is empty", "copy it again"))
    record(workspace)
    assert "nothing was left out" in wan("errors", workspace).stdout
    assert "it is empty" in wan("errors", workspace, "--run", "1").stdout


def test_ten_thousand_errors_in_two_hundred_folders_are_told_in_a_few_lines(wan: Any, workspace: Path) -> None:
    record(
        workspace,
        *((f"/clips/{n % 200}/{n}.mp4", f"damaged at {n} s", "re-encode it") for n in range(10_000)),
        *((f"/other/{letter}.mp4", f"cause {letter * 3}", "") for letter in "abcdefghijklmnop"),
    )
    shown = wan("errors", workspace).stdout
    assert "10,000 samples left out: damaged at 0-9999 s" in shown
    assert "/clips: in 200 folders" in shown
    assert "and 7 more patterns: --all shows them" in shown
    assert len(shown.splitlines()) < 60


def test_all_shows_every_pattern_and_every_file(wan: Any, workspace: Path) -> None:
    record(
        workspace,
        *((f"/clips/{n}.mp4", "it is empty", "") for n in range(30)),
        *((f"/other/{letter}.mp4", f"cause {letter * 3}", "") for letter in "abcdefghijklmnop"),
    )
    shown = wan("errors", workspace, "--all").stdout
    for text in (*(f"/clips/{n}.mp4" for n in range(30)), "cause ppp"):
        assert text in shown
    assert "more pattern" not in shown


def test_names_and_reasons_are_text(wan: Any, workspace: Path) -> None:
    record(workspace, ("/clips/[red]a[/red]\x1b[2J\u202e.mp4", "[bold]no[/] \x1b]0;x\x07", "[/] use :smile:"))
    shown = wan("errors", workspace).stdout
    for text in ("[red]a[/red]\\x1b[2J\\u202e.mp4", "[bold]no[/] \\x1b]0;x\\x07", "[/] use :smile:"):
        assert text in shown
    assert "\x1b" not in shown


def test_a_long_path_can_be_copied_in_one_piece(wan: Any, workspace: Path) -> None:
    path = "/" + "/".join(["a folder with a long name"] * 10) + "/clip.mp4"
    record(workspace, (path, "it is empty", ""))
    assert path in wan("errors", workspace).stdout


def test_files_of_an_earlier_run_are_said_to_be_remembered(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database, database.start_run("train") as run:
        run.sample("/clips/a.mp4", "skipped", module="quarantine", reason="damaged", fix="replace it")
        run.sample("/clips/b.mp4", "skipped", module="media", reason="damaged", fix="re-encode it")
    shown = " ".join(wan("errors", workspace).stdout.split())
    assert "found by media; 1 of them in an earlier run, and not tried again until the file changes" in shown
    assert "re-encode it" in shown
    assert "quarantine" not in shown
