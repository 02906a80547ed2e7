"""What `wan enable` says of a folder that it can do nothing with, and what it does with one that it can."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer import enabling
from wan_fixes.hosts.onetrainer.bootstrap import PTH_LINE, PTH_NAME
from wan_fixes.hosts.onetrainer.enabling import disable, enable
from wan_fixes.hosts.onetrainer.state import enabled_checkouts, remember, state_path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_enabling_writes_one_line_and_the_state_and_disabling_takes_both_back(with_venv: Path) -> None:
    before = files_of(with_venv)

    done = enable(with_venv)

    (added,) = set(files_of(with_venv)) - set(before)
    assert Path(added).name == PTH_NAME and Path(added).read_text(encoding="ascii") == PTH_LINE
    assert not done.was_enabled and done.installed == {}
    assert [entry.path for entry in enabled_checkouts()] == [str(with_venv.resolve())]
    assert enable(with_venv).was_enabled

    disable(with_venv)
    assert files_of(with_venv) == before
    assert not state_path().exists()


def test_a_line_that_was_lost_or_changed_is_written_anew(with_venv: Path) -> None:
    enable(with_venv)
    pth = Path(enabled_checkouts()[0].pth)
    pth.write_text("import something_old\n")
    # The package is there, and pip is not: nothing needs it.
    assert pth.read_text() != PTH_LINE
    assert not enable(with_venv).was_enabled
    assert pth.read_text(encoding="ascii") == PTH_LINE


def test_two_checkouts_may_share_an_environment(with_venv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(with_venv, other, ignore=shutil.ignore_patterns("venv"))
    python = Path(enable(with_venv).python)
    enable(other, python=python)

    disable(with_venv)
    assert [entry.path for entry in enabled_checkouts()] == [str(other.resolve())]
    assert Path(enabled_checkouts()[0].pth).is_file()
    disable(other)
    assert not list((with_venv / "venv").rglob(PTH_NAME))


def test_what_was_moved_away_is_forgotten_when_another_is_enabled(with_venv: Path, tmp_path: Path) -> None:
    enable(with_venv)
    moved = with_venv.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="there is no OneTrainer"):
        enable(with_venv)
    # An environment is not moved by moving its folder; that its Python still starts is luck.
    enable(moved)
    assert [entry.path for entry in enabled_checkouts()] == [str(moved.resolve())]


def test_a_moved_checkout_keeps_account_of_what_came_into_its_environment(with_venv: Path, tmp_path: Path) -> None:
    enable(with_venv)
    (entry,) = enabled_checkouts()
    remember(replace(entry, installed={"wan-fixes": "0.1.0", "pluggy": "1.5"}))
    moved = with_venv.rename(tmp_path / "moved").resolve()

    assert not enable(moved).was_enabled

    (entry,) = enabled_checkouts()
    assert (entry.path, entry.installed) == (str(moved), {"wan-fixes": "0.1.0", "pluggy": "1.5"})
    assert Path(entry.python).is_relative_to(moved) and Path(entry.pth).is_relative_to(moved)
    assert Path(entry.pth).is_file()
    assert enable(moved).was_enabled


def test_a_checkout_that_was_moved_can_be_disabled_where_it_is_now(with_venv: Path, tmp_path: Path) -> None:
    before = set(files_of(with_venv))
    enable(with_venv)
    moved = with_venv.rename(tmp_path / "moved")
    disable(moved)
    assert enabled_checkouts() == []
    assert set(files_of(moved)) == {path.replace(str(with_venv), str(moved), 1) for path in before}


@pytest.mark.skipif(os.name == "nt", reason="links take rights that users have not")
def test_a_link_where_the_checkout_was_is_the_same_checkout(with_venv: Path, tmp_path: Path) -> None:
    enable(with_venv)
    moved = with_venv.rename(tmp_path / "moved")
    with_venv.symlink_to(moved, target_is_directory=True)
    disable(moved)
    assert enabled_checkouts() == [] and not list(moved.rglob(PTH_NAME))


def test_another_checkout_takes_over_the_environment_of_one_that_is_gone(with_venv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(with_venv, other, ignore=shutil.ignore_patterns("venv"))
    python = with_venv / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    enable(other, python=python)
    (entry,) = enabled_checkouts()
    remember(replace(entry, installed={"wan-fixes": "0.1.0"}))
    third = other.rename(tmp_path / "third").resolve()
    enable(third, python=python)
    (entry,) = enabled_checkouts()
    assert (entry.path, entry.installed) == (str(third), {"wan-fixes": "0.1.0"})


def test_another_environment_takes_the_place_of_the_first(with_venv: Path, tmp_path: Path) -> None:
    enable(with_venv)
    first = Path(enabled_checkouts()[0].pth)
    other = tmp_path / "elsewhere"
    shutil.copytree(with_venv / "venv", other, symlinks=True)
    (python,) = [path for path in (other / "bin/python", other / "Scripts/python.exe") if path.exists()]
    assert not enable(with_venv, python=python).was_enabled
    assert not first.exists()
    (entry,) = enabled_checkouts()
    assert Path(entry.pth).is_relative_to(other) and Path(entry.pth).is_file()


def test_a_checkout_that_is_gone_stays_listed_while_its_environment_is_there(with_venv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(with_venv, other, ignore=shutil.ignore_patterns("venv"))
    enable(other, python=enable(with_venv).python)
    shutil.rmtree(other)
    enable(with_venv)
    assert len(enabled_checkouts()) == 2
    disable(other)
    assert [entry.path for entry in enabled_checkouts()] == [str(with_venv.resolve())]


@pytest.mark.parametrize("place", ["nowhere", "scripts/train.py"])
def test_what_is_no_folder_is_refused(place: str, checkout: Path) -> None:
    with pytest.raises(UserError, match="there is no OneTrainer"):
        enable(checkout / place)


def test_a_folder_that_is_no_checkout_is_refused(checkout: Path, tmp_path: Path) -> None:
    (checkout / "modules/util/create.py").unlink()
    for folder in (tmp_path, checkout):
        with pytest.raises(UserError, match="no OneTrainer checkout") as caught:
            enable(folder)
        assert "modules/util/create.py" in caught.value.reason or folder == tmp_path


def test_a_checkout_without_an_environment_is_refused(checkout: Path) -> None:
    with pytest.raises(UserError, match="no Python environment") as caught:
        enable(checkout)
    assert "install.sh" in caught.value.fix and "--python" in caught.value.fix


def test_an_interpreter_that_is_none_is_refused(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no Python"):
        enable(checkout, python=tmp_path / "python")
    text = tmp_path / "text"
    text.write_text("no program")
    with pytest.raises(UserError, match="cannot be started"):
        enable(checkout, python=text)


def test_a_onetrainer_that_is_too_old_is_refused(with_venv: Path) -> None:
    mixin = with_venv / "modules/dataLoader/mixin/DataLoaderMgdsMixin.py"
    mixin.write_text(mixin.read_text().replace("_create_mgds", "create_mgds"))
    with pytest.raises(UserError, match="too old") as caught:
        enable(with_venv)
    assert "_create_mgds" in caught.value.reason
    assert enabled_checkouts() == []


def test_disabling_what_is_not_enabled_says_what_is(with_venv: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="enabled nowhere"):
        disable(with_venv)
    enable(with_venv)
    with pytest.raises(UserError) as caught:
        disable(tmp_path)
    assert str(with_venv) in caught.value.reason


@pytest.mark.parametrize("content", ["", "{", "[]", '{"checkouts": [5]}', '{"checkouts": [{"path": 1}]}'])
def test_a_broken_list_of_checkouts_is_named(content: str, with_venv: Path) -> None:
    state_path().parent.mkdir(parents=True)
    state_path().write_text(content)
    with pytest.raises(UserError, match="cannot be read") as caught:
        enable(with_venv)
    assert caught.value.path == str(state_path())


def test_what_a_kill_leaves_half_installed_is_listed_and_can_be_taken_back(
    with_venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def pip(environment: object, arguments: list[str], trouble: object) -> None:
        calls.append(arguments)
        if "--report" in arguments:
            planned = [
                {"metadata": {"name": "Wan_Fixes", "version": "9"}},
                {"metadata": {"name": "new", "version": "1"}},
            ]
            Path(arguments[arguments.index("--report") + 1]).write_text(json.dumps({"install": planned}))
        elif arguments[0] == "install":
            raise KeyboardInterrupt

    monkeypatch.setattr(enabling, "run_pip", pip)
    with pytest.raises(KeyboardInterrupt):
        enable(with_venv, package="some.whl")
    (entry,) = enabled_checkouts()
    assert entry.installed == {"wan-fixes": "9", "new": "1"}

    disable(with_venv)
    assert calls[-1][0] == "uninstall" and "wan-fixes" in calls[-1] and "new" not in calls[-1]
    assert enabled_checkouts() == []
