"""The plugin packs itself into a wheel, from its sources and as it is installed, and asks no index for its own name."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from wan_fixes import __version__
from wan_fixes.hosts.onetrainer.own_package import make_own_package

PACK = (
    "import sys\n"
    "from pathlib import Path\n"
    "from wan_fixes.errors import UserError\n"
    "from wan_fixes.hosts.onetrainer.own_package import make_own_package\n"
    "try:\n    print(make_own_package(Path(sys.argv[1])))\n"
    "except UserError as error:\n    sys.exit(str(error))\n"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sources."""
    return make_own_package(tmp_path_factory.mktemp("built"))


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Path:
    """A folder that the wheel is installed into, as a user's environment has it: without sources."""
    return install(built, tmp_path / "installed")


def install(wheel: Path, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, str(wheel)], check=True)
    return folder


def pack(installed: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Have an installed plugin pack itself, where no index can be reached."""
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(installed), "PIP_NO_INDEX": "1"}
    return subprocess.run(
        [sys.executable, "-c", PACK, str(folder)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_installed_plugin_packs_the_wheel_that_it_came_from(built: Path, installed: Path, tmp_path: Path) -> None:
    done = pack(installed, tmp_path / "packed")
    assert done.returncode == 0, done.stderr
    packed = Path(done.stdout.strip())
    assert packed.name == built.name == f"wan_fixes-{__version__}-py3-none-any.whl"
    record = f"wan_fixes-{__version__}.dist-info/RECORD"
    before, after = contents(built), contents(packed)
    assert {name: data for name, data in after.items() if name != record} == {
        name: data for name, data in before.items() if name != record
    }
    rows = {name: (digest, size) for name, digest, size in csv.reader(after[record].decode().splitlines())}
    assert set(rows) == set(after) and rows.pop(record) == ("", "")
    for name, (digest, size) in rows.items():
        expected = base64.urlsafe_b64encode(hashlib.sha256(after[name]).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={expected}", str(len(after[name]))), name


def test_what_it_packs_can_be_installed_and_packs_itself_again(installed: Path, tmp_path: Path) -> None:
    """Also with byte code beside it, which the first start has left."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(installed)], check=True)
    packed = Path(pack(installed, tmp_path / "packed").stdout.strip())
    again = pack(install(packed, tmp_path / "second"), tmp_path / "packed again")
    assert again.returncode == 0, again.stderr
    assert contents(Path(again.stdout.strip())) == contents(packed)


def test_a_file_that_is_missing_is_named(installed: Path, tmp_path: Path) -> None:
    (installed / "wan_fixes/errors.py").rename(installed / "wan_fixes/kept.py")
    (installed / "wan_fixes/errors").mkdir()
    (installed / "wan_fixes/errors/__init__.py").write_text("from wan_fixes.kept import *\n")
    done = pack(installed, tmp_path / "packed")
    assert done.returncode == 1
    assert "wan_fixes/errors.py: No such file" in done.stderr and "--package" in done.stderr


def test_a_copy_without_a_record_is_told_to_be_installed(installed: Path, tmp_path: Path) -> None:
    shutil.rmtree(installed / f"wan_fixes-{__version__}.dist-info")
    done = pack(installed, tmp_path / "packed")
    assert done.returncode == 1
    assert "neither its source nor a record of its installation" in done.stderr
