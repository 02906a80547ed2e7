from __future__ import annotations

from collections.abc import Iterator

import pytest

from .hub_server import Hub, running_hub
from .world import REPOSITORY, model_files


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
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        server.add(REPOSITORY, model_files())
        yield server
