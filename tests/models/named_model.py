"""A model folder, behind the server on loopback and in a manifest, so that it can be named instead of found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .hub_server import Hub, running_hub
from .world import REPOSITORY, manifest_of


@contextlib.contextmanager
def served(model: Path, model_type: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Within the block `tiny` is a name of that model, which is fetched to ``folder/models``."""
    components = sorted(path.name for path in model.iterdir() if path.is_dir())
    text = manifest_of().text.decode().replace("WAN_2_1_T2V_1_3B", model_type)
    text = text.replace('["scheduler", "text_encoder", "tokenizer", "transformer", "vae"]', str(components))
    manifest = folder / "tiny.toml"
    manifest.write_text(text)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "0")  # the suite forbids the network, and so does a host of the tests
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(manifest))
    monkeypatch.setenv("MODELS_ROOT", str(folder / "models"))
    files = (path for path in model.rglob("*") if path.is_file())
    with running_hub() as hub:
        hub.add(REPOSITORY, {path.relative_to(model).as_posix(): path.read_bytes() for path in files})
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub
