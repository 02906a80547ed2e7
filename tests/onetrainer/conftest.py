"""A checkout in miniature: the files by which OneTrainer is known, small enough to import in a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
