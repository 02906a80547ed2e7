"""What users install is whole: the sdist, the wheel made from it, and every module, away from the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "constraints.txt", "plugin.py", "LICENSE")
FILES += ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
FOLDERS = (".ci", "wan_fixes", "ui", "docs", "examples", "benchmarks", "tests")
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.egg-info", ".*", "quickstart-output")


def run(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources without anything that was built from them."""
    folder = tmp_path_factory.mktemp("export") / "wan-fixes"
    folder.mkdir()
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=LEFTOVERS)
    return folder


@pytest.fixture(scope="module")
def dist(export: Path) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    folder = export.parent / "dist"
    run("-m", "build", "--no-isolation", "--outdir", str(folder), str(export), cwd=export.parent)
    return folder


@pytest.fixture(scope="module")
def wheel_names(dist: Path) -> set[str]:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


@pytest.fixture(scope="module")
def sdist_names(dist: Path) -> set[str]:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        return {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}


@pytest.fixture(scope="module")
def expected(export: Path, dist: Path) -> set[str]:
    """Every file of the package, data files too, under the name that it is installed by."""
    names = [path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()]
    own = {name for name in names if name.startswith("wan_fixes/")}
    return own | {f"wan_fixes/{name}" for name in names if name.startswith("ui/")}


def test_the_wheel_holds_every_file_of_the_package(expected: set[str], wheel_names: set[str]) -> None:
    assert {"wan_fixes/py.typed", "wan_fixes/ui/__init__.py", "wan_fixes/cli/main.py"} <= expected
    assert expected - wheel_names == set()


def test_the_wheel_puts_nothing_but_the_package_at_the_top(wheel_names: set[str]) -> None:
    top = {name.partition("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"wan_fixes"}


def test_the_wheel_has_its_commands_and_licence(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        info = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
        entry_points = wheel.read(info["entry_points.txt"]).decode()
        assert "wan = wan_fixes.cli.main:main" in entry_points
        assert "wan_fixes = wan_fixes.plugin:plugin" in entry_points
        assert "AFFERO" in wheel.read(info["LICENSE"]).decode()


def test_the_sdist_holds_what_the_repository_needs(sdist_names: set[str]) -> None:
    needed = {
        *FILES,
        "docs/architecture.md",
        "examples/quickstart.sh",
        "examples/quickstart.py",
        "tests/run.sh",
        ".ci/venv.sh",
    }
    assert needed - sdist_names == set()
    assert not [name for name in sdist_names if "__pycache__" in name]


def test_every_module_imports_away_from_the_repository(dist: Path, expected: set[str], tmp_path: Path) -> None:
    target = tmp_path / "installed"
    wheel = str(next(dist.glob("*.whl")))
    run("-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", str(target), wheel, cwd=tmp_path)
    program = f"""
import importlib, importlib.util, json, pkgutil, sys
sys.path.insert(0, {str(target)!r})
import wan_fixes

def place(name):
    try:
        return importlib.import_module(name).__file__
    except ModuleNotFoundError as error:
        # What only OneTrainer's environment has, and a window: only the rooms that are about these may need it.
        foreign = error.name.partition(".")[0]
        needs = {{
            "wan_fixes.hosts.onetrainer.": ("modules", "mgds", "gguf"),
            "wan_fixes.ui.ctk.": ("tkinter", "_tkinter", "customtkinter"),
            "wan_fixes.ui.qt.": ("PySide6",),
        }}
        if not any(name.startswith(room) and foreign in packages for room, packages in needs.items()):
            raise
        return importlib.util.find_spec(name).origin

names = [module.name for module in pkgutil.walk_packages(wan_fixes.__path__, "wan_fixes.")]
print(json.dumps({{name: place(name) for name in names}}))
"""
    places = json.loads(run("-c", program, cwd=tmp_path))
    missing = {name.removesuffix(".py").replace("/", ".") for name in expected if name.endswith(".py")}
    missing = {name.removesuffix(".__init__") for name in missing} - {"wan_fixes"} - set(places)
    assert missing == set()
    assert [name for name, place in places.items() if target not in Path(place).parents] == []
