"""What a newcomer meets: help, proposals, errors that name path, reason and fix, and exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wan_fixes import __version__
from wan_fixes.cli import stats
from wan_fixes.cli.main import run
from wan_fixes.errors import CriticalError, UserError


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `wan stats` fail with `error`, at the place where it first touches the disk."""

    def fail(place: Path) -> Path:
        raise error

    monkeypatch.setattr(stats, "find_run_database", fail)


def test_wan_alone_shows_help(wan: Any) -> None:
    result = wan()
    assert result.exit_code == 0
    for command in ("train", "check", "stats", "cache", "version"):
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize("arguments", [("version",), ("--version",)])
def test_the_version_is_shown(wan: Any, arguments: tuple[str, ...]) -> None:
    result = wan(*arguments)
    assert result.exit_code == 0
    assert __version__ in result.stdout


def test_a_misspelt_command_is_a_usage_error(wan: Any) -> None:
    result = wan("chek", "preset.json")
    assert result.exit_code == 2
    assert "chek" in result.stderr


def test_a_wrong_path_proposes_the_nearest(wan: Any, tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "dance.json").write_text("{}", encoding="utf-8")
    result = wan("check", tmp_path / "preset" / "dnace.json")
    assert result.exit_code == 2
    assert str(tmp_path / "preset" / "dnace.json") in result.stderr
    assert f"did you mean {tmp_path / 'presets' / 'dance.json'}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (CriticalError, 1)])
def test_our_errors_name_path_reason_and_fix_without_a_traceback(wan: Any, monkeypatch, error: Any, code: int) -> None:
    raising(monkeypatch, error("cannot be read", path="/clips/a.mp4", reason="it is on fire", fix="use water"))
    result = wan("stats")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: cannot be read: /clips/a.mp4",
        "  why: it is on fire",
        "  fix: use water",
    ]


def test_debug_adds_the_traceback(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, UserError("cannot be read", path="/clips/a.mp4"))
    result = wan("stats", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "error: cannot be read: /clips/a.mp4" in result.stderr


def test_debug_does_not_outlast_its_command(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, UserError("cannot be read"))
    wan("stats", "--debug")
    assert "Traceback" not in wan("stats").stderr


def test_texts_of_users_are_never_markup(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "[red]a[/red] [link=file:///x]b[/link] :smile: \x1b[2J\u202e.mp4"
    raising(monkeypatch, UserError("cannot be read", path=name, reason="[bold]no[/]", fix="[/]"))
    assert "\x1b" not in wan("stats", "--debug").stderr
    said = wan("stats").stderr
    assert "[red]a[/red] [link=file:///x]b[/link] :smile: \\x1b[2J\\u202e.mp4" in said
    assert "why: [bold]no[/]" in said
    assert "\x1b" not in said


def test_a_long_path_is_neither_cut_nor_broken_into_lines(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/" + "/".join(["a folder with a long name"] * 40) + "/clip.mp4"
    raising(monkeypatch, UserError("cannot be read", path=path))
    assert path in wan("stats").stderr


def test_an_error_of_the_system_is_one_line(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, PermissionError(13, "Permission denied", "/clips/a.mp4"))
    result = wan("stats")
    assert result.exit_code == 1
    assert "error: Permission denied: /clips/a.mp4" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_fault_of_ours_comes_with_its_traceback(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError("on purpose"))
    result = wan("stats")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError: on purpose" in result.stderr


def test_a_missing_extra_is_named_with_the_command_that_installs_it(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ModuleNotFoundError("No module named 'torch'", name="torch"))
    result = wan("stats")
    assert result.exit_code == 2
    assert "torch is not installed" in result.stderr
    assert "[standalone]" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_exits_with_130(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    result = wan("stats")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.stderr


def test_run_returns_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert run(["no-such-command"]) == 2
    raising(monkeypatch, KeyboardInterrupt())
    assert run(["stats"]) == 130
