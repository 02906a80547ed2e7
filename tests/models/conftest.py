from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .hub_server import Hub, running_hub
from .world import REPOSITORY, manifest_of, model_files


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite forbids the network by HF_HUB_OFFLINE; here it is loopback."""
    for name in (
        "HF_HUB_OFFLINE",
        "WAN_MODELS_OFFLINE",
        "MODELS_ROOT",
        "WAN_MODELS_MANIFEST",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "WAN_MODELS_PUBLIC_KEY",
        "WAN_MODELS_LOCAL",
        "WAN_MODELS_S3",
        "WAN_MODELS_QUOTA",
        "WAN_MODELS_XET",
        "WAN_MODELS_FEATURES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WAN_MODELS_KEYRING", "0")
    # The hub's client reads the environment when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        server.add(REPOSITORY, model_files())
        yield server


@pytest.fixture
def cli_root(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest = tmp_path / "tiny.toml"
    manifest.write_bytes(manifest_of().text)
    for name in ("HF_HUB_OFFLINE", "WAN_MODELS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(manifest))
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    return tmp_path / "models"
