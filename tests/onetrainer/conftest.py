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
    "    def _create_mgds(self, config, definition, train_progress, is_validation=False):\n"
    "        return DataSet(definition)\n"
    "class DataSet:\n    def __init__(self, definition):\n        self.definition = definition\n"
    "    def start_next_epoch(self):\n        pass\n",
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


@pytest.fixture
def trainer_sources(checkout: Path) -> Path:
    """The checkout with a trainer that runs through the stations of OneTrainer's, and nothing else."""
    sources = {
        "modules/util/multi_gpu_util.py": "rank = 0\ndef is_master():\n    return rank == 0\n",
        "modules/util/callbacks/TrainCallbacks.py": "class TrainCallbacks:\n"
        "    def on_update_status(self, status):\n        pass\n"
        "    def on_sample_default(self, output):\n        pass\n",
        "modules/trainer/GenericTrainer.py": TRAINER,
    }
    for name, source in sources.items():
        file = checkout / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    return checkout


TRAINER = """
import modules.util.multi_gpu_util as multi
from modules.dataLoader.mixin.DataLoaderMgdsMixin import DataLoaderMgdsMixin
from modules.util.callbacks.TrainCallbacks import TrainCallbacks


class Board:
    def __init__(self):
        self.scalars = []

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, value, step))


class Commands:
    stopped = False

    def get_stop_command(self):
        return self.stopped


class GenericTrainer:
    def __init__(self, config, fails_in=None, error=None):
        self.config, self.fails_in, self.error = config, fails_in, error
        self.tensorboard, self.commands, self.callbacks = Board(), Commands(), TrainCallbacks()

    def station(self, name):
        self.callbacks.on_update_status(name)
        if self.fails_in == name:
            raise self.error

    def start(self):
        self.station("start")
        self.definition = DataLoaderMgdsMixin()._create_mgds(self.config, ["stock", ["nested", None]], None)

    def train(self):
        self.station("train")
        self.tensorboard.add_scalar("lr/unet", 0.5, 0)
        self.tensorboard.add_scalar("loss/train_step", 2.5, 0)
        return "trained"

    def end(self):
        self.station("end")
"""
