"""A model that the manifest calls sensitive goes through `ensure` like any other, and lies there encrypted (M14)."""

from __future__ import annotations

from pathlib import Path

import pytest

from wan_fixes.models.adopt import Migration
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import ModelState
from wan_fixes.models.sealing import new_key
from wan_fixes.models.versions import ModelVersions

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .test_nearby import write_model
from .world import content_of, ensurer, manifest_of

KEY = new_key()
SENSITIVE = manifest_of(files="sensitive = true")


@pytest.fixture
def models(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelEnsurer:
    monkeypatch.setenv("WAN_MODELS_ENCRYPTION_KEY", KEY)
    return ensurer(tmp_path, hub, SENSITIVE)


def test_m14_it_is_fetched_sealed_and_opened_for_this_process(hub: Hub, models: ModelEnsurer) -> None:
    opened = models.ensure("tiny")
    assert content_of(opened) == whole()
    folder = models.ensure("tiny", is_opened=False)
    assert folder == models.target("tiny").folder != opened
    assert {path for path in content_of(folder) if not path.startswith(".")} == {f"{path}.age" for path in whole()}
    assert models.status("tiny").state is ModelState.COMPLETE
    assert not models.target("tiny").partial.exists()
    hub.requests.clear()
    assert models.ensure("tiny") == opened
    assert hub.requests == []


def test_m14_without_a_key_nothing_is_fetched(hub: Hub, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAN_MODELS_ENCRYPTION_KEY")
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert (caught.value.code, hub.bytes_served) == (ErrorCode.NO_KEY, 0)


def test_m14_what_is_spoilt_is_found_without_the_key_and_mended(
    hub: Hub, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.ensure("tiny", is_opened=False)
    sealed = folder / f"{LARGE}.age"
    content = bytearray(sealed.read_bytes())
    content[500] ^= 1
    sealed.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.delenv("WAN_MODELS_ENCRYPTION_KEY")
        assert models.verify_integrity("tiny").corrupt == (f"{LARGE}.age",)
    hub.served.clear()
    assert models.repair("tiny").state is ModelState.COMPLETE
    assert set(hub.served) == {LARGE}
    assert content_of(models.ensure("tiny")) == whole()


def test_m14_what_would_leave_it_in_the_clear_is_refused(hub: Hub, tmp_path: Path, models: ModelEnsurer) -> None:
    mine = write_model(tmp_path / "mine" / "Tiny-Diffusers")
    migration = Migration(models)
    with pytest.raises(ModelError) as caught:
        migration.adopt(migration.find(mine)[0])
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    models.ensure("tiny")
    for move in (ModelVersions(models).update, ModelVersions(models).rollback):
        with pytest.raises(ModelError) as caught:
            move("tiny")
        assert caught.value.code is ErrorCode.INVALID_CONFIG


def test_m14_a_model_that_is_sensitive_no_longer_leaves_nothing_sealed(
    hub: Hub, tmp_path: Path, models: ModelEnsurer
) -> None:
    models.ensure("tiny")
    plain = ensurer(tmp_path, hub)
    assert content_of(plain.ensure("tiny")) == whole()
    assert plain.verify_integrity("tiny").state is ModelState.COMPLETE
