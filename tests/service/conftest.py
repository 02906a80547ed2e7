from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from models.hub_server import running_hub
from models.world import REPOSITORY, ensurer, model_files

from wan_fixes.models.ensure import ModelEnsurer


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite forbids the network by HF_HUB_OFFLINE; here it is loopback."""
    for name in ("HF_HUB_OFFLINE", "WAN_MODELS_OFFLINE", "HF_TOKEN", "WAN_SERVE_TOKEN", "WAN_MODELS_LOCAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WAN_MODELS_KEYRING", "off")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def models(root: Path) -> ModelEnsurer:
    """Knows one model, which is not there."""
    with running_hub() as nobody_asks:
        return ensurer(root, nobody_asks)


@pytest.fixture
def complete(root: Path) -> Iterator[ModelEnsurer]:
    """Knows one model, which is there."""
    with running_hub() as hub:
        hub.add(REPOSITORY, model_files())
        found = ensurer(root, hub)
        found.ensure("tiny")
        yield found
