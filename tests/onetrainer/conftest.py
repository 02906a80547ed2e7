"""A checkout in miniature: the files by which OneTrainer is known, small enough to import in a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wan_fixes.hosts.onetrainer.checkout import inspect_environment
from wan_fixes.hosts.onetrainer.import_hooks import disarm

FILES = {
    "scripts/train.py": "import sys\nfrom pathlib import Path\n"
    "sys.path.insert(0, str(Path(__file__).absolute().parent.parent))\n"
    "from modules.util import create\nprint(create.create_model_loader())\n",
    "modules/util/create.py": "from modules.util.factory import get\n"
    "def create_model_loader():\n    'Makes one.'\n    return get()\n"
    "def create_model_saver():\n    return None\n",
    "modules/util/factory.py": "def get():\n    return 'stock'\n",
    "modules/util/config/TrainConfig.py": "class TrainConfig:\n    pass\n",
    "modules/dataLoader/mixin/DataLoaderMgdsMixin.py": "class DataLoaderMgdsMixin:\n"
    "    def _create_mgds(self, config, definition, train_progress, is_validation=False):\n        return definition\n",
}


def make_checkout(folder: Path) -> Path:
    for name, source in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "OneTrainer")


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_FIXES_STATE", str(tmp_path / "state" / "hosts.json"))
    monkeypatch.setenv("WAN_FIXES_SETTINGS", str(tmp_path / "settings.json"))
    (tmp_path / "settings.json").write_text("{}")
    for name in ("OT_PYTHON_VENV", "VENV_DIR", "OT_CONDA_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def with_venv(checkout: Path) -> Path:
    """The checkout with an environment that sees the packages of this one, so that nothing needs installing."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(checkout / "venv")], check=True)
    python = checkout / ("venv/Scripts/python.exe" if os.name == "nt" else "venv/bin/python")
    packages = inspect_environment(python).site_packages
    folders = [Path(__file__).resolve().parents[2], *(p for p in sys.path if Path(p).name == "site-packages")]
    lines = [f"import site; site.addsitedir({str(folder)!r})" for folder in folders]
    (packages / "aaa.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    information = packages / "wan_fixes-0.1.0.dist-info"  # as if it had been installed there by hand
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: wan-fixes\nVersion: 0.1.0\n")
    return checkout


@pytest.fixture
def importable(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The checkout at the head of the path, as its launchers put it; nothing of it is left afterwards."""
    path_hooks, meta_path = list(sys.path_hooks), list(sys.meta_path)
    monkeypatch.syspath_prepend(str(checkout))
    forget_modules()
    try:
        yield checkout
    finally:
        disarm()
        forget_modules()
        assert (sys.path_hooks, sys.meta_path) == (path_hooks, meta_path)


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "modules"]:
        del sys.modules[name]
