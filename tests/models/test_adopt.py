"""Models that are on this machine already are taken over where they lie, and given back (M16)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from wan_fixes.models.adopt import Migration, Undone
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.gc import GcPolicy, ModelGc
from wan_fixes.models.installed import ModelState

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .test_nearby import write_model
from .world import PART, REPOSITORY, content_of, ensurer, manifest_of, memory_folder, model_files


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
    assert migration.undo("tiny") == Undone(mine, ())
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
    with pytest.raises(ModelError, match="vae") as caught:
        migration.adopt(migration.find(mine)[0])
    assert caught.value.code is ErrorCode.MISSING_FILES
    assert models.status("tiny").state is ModelState.NOT_PRESENT


def test_m16_what_was_fetched_is_not_undone(hub: Hub, models: ModelEnsurer) -> None:
    models.ensure("tiny")
    with pytest.raises(ModelError, match="was not taken over"):
        Migration(models).undo("tiny")
    assert content_of(models.target("tiny").folder) == whole()


def test_m16_a_folder_that_lacks_a_shard_is_not_taken_over_where_no_server_answers(
    hub: Hub, tmp_path: Path, models: ModelEnsurer
) -> None:
    mine = write_model(tmp_path / "Tiny-Diffusers")
    shards = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (mine / LARGE).rename(mine / "transformer" / shards[0])
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (mine / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    hub.fail("status", "/api/", 100, (500, {}))
    migration = Migration(models)
    with pytest.raises(ModelError, match=shards[1]) as caught:
        migration.adopt(migration.find(mine)[0])
    assert caught.value.code is ErrorCode.MISSING_FILES
    assert models.status("tiny").state is ModelState.NOT_PRESENT
    assert models.known_listing(models.target("tiny")) is None


@pytest.mark.parametrize("offline", ["1", "0"])
def test_m9_a_folder_with_another_file_than_the_manifest_names_is_not_taken_over(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", offline)
    named = [f'{{ path = "{path}" }}' for path in whole() if path != LARGE]
    named.append(f'{{ path = "{LARGE}", sha256 = "{"a" * 64}" }}')
    models = ensurer(tmp_path / "models", hub, manifest_of(files=f"files = [{', '.join(named)}]"))
    mine = write_model(tmp_path / "Tiny-Diffusers")
    migration = Migration(models)
    with pytest.raises(ModelError, match=LARGE) as caught:
        migration.adopt(migration.find(mine)[0])
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL
    assert models.status("tiny").state is ModelState.NOT_PRESENT


def test_m16_what_was_taken_over_in_part_is_undone(tmp_path: Path, models: ModelEnsurer) -> None:
    mine = write_model(tmp_path / "Tiny-Diffusers")
    (mine / LARGE).unlink()
    before = tree(mine)
    migration = Migration(models)
    assert migration.adopt(migration.find(mine)[0]).missing == (LARGE,)
    assert migration.undo("tiny") == Undone(mine, ())
    assert not models.target("tiny").partial.exists() and tree(mine) == before


def test_m16_undoing_leaves_what_was_fetched(tmp_path: Path, models: ModelEnsurer) -> None:
    mine = write_model(tmp_path / "Tiny-Diffusers")
    (mine / LARGE).unlink()
    before = tree(mine)
    migration = Migration(models)
    migration.adopt(migration.find(mine)[0])
    folder = models.ensure("tiny")
    assert migration.undo("tiny") == Undone(mine, (LARGE,))
    assert content_of(folder) == {LARGE: model_files()[LARGE]} and tree(mine) == before
    assert models.status("tiny").state is ModelState.PARTIAL
    assert content_of(models.ensure("tiny")) == whole()


def test_m16_undoing_leaves_a_model_that_was_fetched_since(hub: Hub, tmp_path: Path, models: ModelEnsurer) -> None:
    mine = write_model(tmp_path / "Tiny-Diffusers")
    migration = Migration(models)
    migration.adopt(migration.find(mine)[0])
    gc = ModelGc(models)
    gc.collect(gc.plan(GcPolicy(max_age_days=-1.0)))
    assert models.status("tiny").state is ModelState.NOT_PRESENT
    folder = models.ensure("tiny")
    assert set(migration.undo("tiny").left) == set(whole())
    assert content_of(folder) == whole() == content_of(mine)
    assert models.status("tiny").state is ModelState.COMPLETE


def test_m16_undoing_forgets_a_pin_to_the_folder(
    hub: Hub, tmp_path: Path, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = write_model(tmp_path / "Tiny-Diffusers", **{LARGE: bytes(10 * PART)})
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    migration = Migration(models)
    migration.adopt(migration.find(mine)[0])
    monkeypatch.delenv("WAN_MODELS_OFFLINE")
    assert models.lock("tiny").source == f"folder:{mine}"
    migration.undo("tiny")
    assert content_of(models.ensure("tiny")) == whole()


def test_m16_a_folder_that_is_named_relative_to_the_current_one_is_linked_from_another_drive(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = memory_folder()
    if elsewhere is None or Path(elsewhere).stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    models = ensurer(Path(elsewhere) / f"wan-fixes-{os.getpid()}", hub)
    cache = tmp_path / "hub"
    revision = hub.repositories[REPOSITORY].head
    snapshot_download(REPOSITORY, revision=revision, endpoint=hub.address, cache_dir=cache, token=False)
    before = tree(cache)
    monkeypatch.chdir(tmp_path)
    migration = Migration(models)
    try:
        assert migration.adopt(migration.find(Path("hub"))[0]).is_complete
        assert content_of(models.target("tiny").folder) == whole()
        undone = migration.undo("tiny")
        assert undone == Undone(cache / "models--Wan-AI--Tiny-Diffusers", ()) and tree(cache) == before
        assert models.status("tiny").state is ModelState.NOT_PRESENT
    finally:
        shutil.rmtree(models.resolver.root)


def test_m19_a_file_of_the_folder_that_is_none_of_the_model_is_neither_judged_nor_read(
    hub: Hub, tmp_path: Path, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    mine = write_model(tmp_path / "Tiny-Diffusers", **{"notes/ read me.txt": b"mine", "old.safetensors": b"another"})
    read: list[Path] = []
    open_file = Path.open

    def opened(path: Path, *args: Any, **named: Any) -> Any:
        if path.is_relative_to(mine) and path.suffix in (".txt", ".safetensors"):
            read.append(path)
        return open_file(path, *args, **named)

    monkeypatch.setattr(Path, "open", opened)
    migration = Migration(models)
    assert migration.adopt(migration.find(mine)[0]).is_complete
    monkeypatch.undo()
    assert sorted(read) == sorted(mine / path for path in whole() if path.endswith(".safetensors"))
    assert content_of(models.target("tiny").folder) == whole()
