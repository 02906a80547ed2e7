"""`wan enable` and `wan disable` in a real checkout: what they add, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.own_host import OwnHost, make_own_host
from wan_fixes.hosts.onetrainer.bootstrap import PTH_LINE, PTH_NAME
from wan_fixes.hosts.onetrainer.own_package import make_own_package


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    yield make_own_host(tmp_path_factory.mktemp("host"), Path(os.environ["WAN_FIXES_ONETRAINER"]))


def test_disabling_takes_back_exactly_what_enabling_added(host) -> None:
    files = host.files()

    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    added = sorted(set(host.files()) - set(files))
    assert host.git_status() == ""
    state = json.loads((host.work / "hosts.json").read_text(encoding="utf-8"))
    (entry,) = state["checkouts"]
    assert entry["path"] == str(host.checkout.resolve()) and entry["installed"] == {"wan-fixes": "0.1.0"}
    assert Path(entry["pth"]).name == PTH_NAME and Path(entry["pth"]).read_bytes() == PTH_LINE.encode("ascii")
    names = {path.split("site-packages")[-1].strip("/\\").split("/")[0] for path in added if "site-packages" in path}
    assert names == {PTH_NAME, "wan_fixes", "wan_fixes-0.1.0.dist-info"}
    assert set(files) <= set(host.files())

    again = host.wan("enable", str(host.checkout))
    assert again.returncode == 0 and "already enabled" in again.stdout
    assert sorted(set(host.files()) - set(files)) == added

    disabled = host.wan("disable", str(host.checkout))
    assert disabled.returncode == 0, disabled.stderr
    assert host.files() == files
    assert host.git_status() == ""
    assert not (host.work / "hosts.json").exists()

    once_more = host.wan("disable", str(host.checkout))
    assert once_more.returncode == 2 and "not enabled" in once_more.stderr


def test_a_checkout_that_was_moved_is_enabled_anew_and_disabling_leaves_nothing(host, tmp_path: Path) -> None:
    """The environment lies inside the folder and moves along; its packages are taken back where it is now."""
    before = host.files()
    assert host.wan("enable", str(host.checkout)).returncode == 0
    moved = OwnHost(host.checkout.rename(tmp_path / "moved"), host.work)
    try:
        started = moved.launch("-c", "import sys; sys.path.insert(0, '.'); import modules")
        assert f'run `wan enable "{moved.checkout.resolve()}"`' in started.stderr
        assert moved.wan("enable", str(moved.checkout)).returncode == 0
        started = moved.launch("-c", "import sys; sys.path.insert(0, '.'); import modules")
        assert f"is active in {moved.checkout.resolve()}" in started.stderr
        disabled = moved.wan("disable", str(moved.checkout))
        assert disabled.returncode == 0, disabled.stderr
    finally:
        moved.checkout.rename(host.checkout)
    assert host.files() == before
    assert not (host.work / "hosts.json").exists()


def test_a_plugin_that_was_installed_enables_without_sources_and_without_an_index(
    host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_own_package(tmp_path)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "installed")]
    subprocess.run([*pip, str(wheel)], check=True)
    before = host.files()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))  # `host.wan` sees no index either

    enabled = host.wan("enable", str(host.checkout))

    assert enabled.returncode == 0, enabled.stderr
    packages = next((host.checkout / "venv").rglob("wan_fixes")).parent
    for folder in ("wan_fixes", "wan_fixes/ui", "wan_fixes/hosts/onetrainer/presets"):
        there = {path.relative_to(tmp_path / "installed") for path in (tmp_path / "installed" / folder).rglob("*.*")}
        assert {str(path) for path in there if path.suffix != ".pyc"} == {
            str(path.relative_to(packages)) for path in (packages / folder).rglob("*.*") if path.suffix != ".pyc"
        }
    assert host.wan("disable", str(host.checkout)).returncode == 0
    assert host.files() == before


def test_a_package_that_would_move_is_refused_and_nothing_is_changed(host, tmp_path: Path) -> None:
    files = host.files()
    wheel = tmp_path / "wan_fixes-9.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("wan_fixes/__init__.py", "")
        information = "Metadata-Version: 2.1\nName: wan-fixes\nVersion: 9.0\nRequires-Dist: pluggy<1\n"
        archive.writestr("wan_fixes-9.0.dist-info/METADATA", information)
        archive.writestr(
            "wan_fixes-9.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("wan_fixes-9.0.dist-info/RECORD", "")

    done = host.wan("enable", str(host.checkout), "--package", str(wheel))

    assert done.returncode == 2
    assert "does not fit into OneTrainer's environment" in done.stderr and "pluggy" in done.stderr
    assert host.files() == files
    assert not (host.work / "hosts.json").exists()


def test_a_checkout_that_was_moved_away_is_disabled_and_forgotten(host, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(host.checkout, moved, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    assert host.wan("enable", str(moved), "--python", str(host.python)).returncode == 0
    shutil.rmtree(moved)

    done = host.wan("disable", str(moved))

    assert done.returncode == 0, done.stderr
    assert not (host.work / "hosts.json").exists()
    assert not any(PTH_NAME in path for path in host.files())
