"""Models that are on this machine already are taken over where they lie, and given back (M16)."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from wan_fixes.models.adopt import Migration
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import ModelState

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .test_nearby import write_model
from .world import PART, REPOSITORY, content_of, ensurer


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> ModelEnsurer:
    return ensurer(tmp_path / "models", hub)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir()
    }


@pytest.mark.parametrize("inside", [True, False])
def test_m16_a_folder_is_taken_over_without_copying_and_stays_as_it_is(
    hub: Hub, tmp_path: Path, models: ModelEnsurer, inside: bool
) -> None:
    mine = write_model(tmp_path / "my models" / "Tiny-Diffusers")
    before = tree(mine)
    migration = Migration(models)
    [candidate] = migration.find(mine.parent if inside else mine)
    hub.served.clear()
    adopted = migration.adopt(candidate)
    assert adopted.is_complete and adopted.linked == sum(map(len, whole().values()))
    folder = models.target("tiny").folder
    assert content_of(folder) == whole()
    assert (folder / LARGE).samefile(mine / LARGE)
    assert models.status("tiny").state is ModelState.COMPLETE
    assert (hub.bytes_served, tree(mine)) == (0, before)
    assert migration.undo("tiny") == mine
    assert models.status("tiny").state is ModelState.NOT_PRESENT and not folder.exists()
    assert tree(mine) == before


def test_m16_the_hubs_cache_is_taken_over(hub: Hub, tmp_path: Path, models: ModelEnsurer) -> None:
    cache = tmp_path / "hub"
    revision = hub.repositories[REPOSITORY].head
    snapshot_download(REPOSITORY, revision=revision, endpoint=hub.address, cache_dir=cache, token=False)
    before = tree(cache)
    hub.served.clear()
    for place in (cache, cache / "models--Wan-AI--Tiny-Diffusers", tmp_path):
        assert [str(candidate.target.name) for candidate in Migration(models).find(place)] == ["tiny@1.0.0#original"]
    [candidate] = Migration(models).find(cache)
    assert Migration(models).adopt(candidate).is_complete
    assert content_of(models.target("tiny").folder) == whole()
    assert (hub.bytes_served, tree(cache)) == (0, before)


def test_m16_what_is_missing_or_spoilt_is_named_and_only_that_is_fetched(
    hub: Hub, tmp_path: Path, models: ModelEnsurer
) -> None:
    mine = write_model(tmp_path / "Tiny-Diffusers", **{LARGE: bytes(10 * PART)})
    (mine / "vae/config.json").unlink()
    migration = Migration(models)
    adopted = migration.adopt(migration.find(mine)[0])
    assert adopted.missing == (LARGE, "vae/config.json")
    assert adopted.bytes_needed == 10 * PART + 2
    assert models.status("tiny").state is ModelState.PARTIAL
    hub.served.clear()
    models.ensure("tiny")
    assert set(hub.served) == {LARGE, "vae/config.json"}
    assert content_of(models.target("tiny").folder) == whole()
    assert (mine / LARGE).read_bytes() == bytes(10 * PART)


def test_m16_a_file_that_is_put_back_completes_what_was_taken_over(tmp_path: Path, models: ModelEnsurer) -> None:
    mine = write_model(tmp_path / "Tiny-Diffusers")
    config = (mine / "vae/config.json").read_bytes()
    (mine / "vae/config.json").unlink()
    migration = Migration(models)
    assert migration.adopt(migration.find(mine)[0]).missing == ("vae/config.json",)
    (mine / "vae/config.json").write_bytes(config)
    assert migration.adopt(migration.find(mine)[0]).is_complete
    assert content_of(models.target("tiny").folder) == whole()


def test_m16_offline_what_is_there_is_believed_and_pinned(
    hub: Hub, tmp_path: Path, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    mine = write_model(tmp_path / "anything")
    migration = Migration(models)
    with pytest.raises(ModelError, match="no model to take over"):
        migration.find(mine)
    adopted = migration.adopt(migration.find(mine, "tiny")[0])
    assert adopted.is_complete and hub.requests == []
    assert models.status("tiny").source == f"folder:{mine}"
    assert models.verify_integrity("tiny").state is ModelState.COMPLETE


def test_m16_a_folder_that_lacks_a_component_is_not_taken_over(
    hub: Hub, tmp_path: Path, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    mine = write_model(tmp_path / "Tiny-Diffusers")
    for path in mine.glob("vae/*"):
        path.unlink()
    migration = Migration(models)
    with pytest.raises(ModelError, match="needs vae") as caught:
        migration.adopt(migration.find(mine)[0])
    assert caught.value.code is ErrorCode.MISSING_FILES
    assert models.status("tiny").state is ModelState.NOT_PRESENT


def test_m16_what_was_fetched_is_not_undone(hub: Hub, models: ModelEnsurer) -> None:
    models.ensure("tiny")
    with pytest.raises(ModelError, match="was not taken over"):
        Migration(models).undo("tiny")
    assert content_of(models.target("tiny").folder) == whole()
