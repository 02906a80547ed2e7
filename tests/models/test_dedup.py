"""Files that models share are stored once, and nothing is lost by it (M10)."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from wan_fixes.models.dedup import find_duplicates, remove_duplicates
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.gc import GcPolicy, ModelGc
from wan_fixes.models.installed import ModelState
from wan_fixes.models.linking import share, share_or_point

from .hub_server import Hub
from .test_ensure import LARGE
from .test_nearby import ENCODER, OTHER, two_models
from .world import PART, content_of, ensurer, model_files, some_bytes

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> ModelEnsurer:
    """Two models with one encoder and one VAE, each with copies of its own, as other programs leave them."""
    hub.add(OTHER, model_files(**{LARGE: some_bytes(5000, 77)}))
    found = ensurer(tmp_path, hub, two_models())
    found.ensure("tiny")
    other = found.ensure("other")
    for path in (ENCODER, VAE):
        shutil.copy2(other / path, other / "copy")
        (other / "copy").replace(other / path)
    assert found.status("other").state is ModelState.COMPLETE
    return found


def test_m10_shared_files_become_one_and_both_models_stay_complete(models: ModelEnsurer) -> None:
    one, other = (models.target(name).folder for name in ("tiny", "other"))
    before = content_of(one), content_of(other)
    found = find_duplicates(models.resolver)
    assert sum(duplicate.size for duplicate in found) == 3 * PART + 7 + 2 * PART + 1
    assert remove_duplicates(found, models.locks) == found
    assert (one / ENCODER).samefile(other / ENCODER) and (one / VAE).samefile(other / VAE)
    assert ((one / ENCODER).stat().st_nlink, (one / LARGE).stat().st_nlink) == (2, 1)
    assert (content_of(one), content_of(other)) == before
    assert [models.status(name).state for name in ("tiny", "other")] == [ModelState.COMPLETE] * 2
    assert find_duplicates(models.resolver) == []


def test_m10_a_spoilt_file_takes_no_sound_ones_place(models: ModelEnsurer) -> None:
    found = find_duplicates(models.resolver)
    kept = found[0].same_as
    state = kept.stat()
    kept.write_bytes(bytes(state.st_size))
    os.utime(kept, ns=(state.st_atime_ns, state.st_mtime_ns))
    done = remove_duplicates(found, models.locks)
    assert found[0] not in done
    assert found[0].path.read_bytes() == model_files()[ENCODER if "encoder" in str(kept) else VAE]


def test_m10_a_file_that_was_changed_since_it_was_read_takes_no_others_place(models: ModelEnsurer) -> None:
    other = models.target("other")
    shutil.copytree(other.folder, models.resolver.old_version_folder(other.name, "main"))
    found = find_duplicates(models.resolver)
    first, second = (one for one in found if one.path.as_posix().endswith(ENCODER))
    assert first.same_as == second.same_as

    def update(_: int) -> None:
        kept = first.same_as
        (kept.parent / "new").write_bytes(bytes(kept.stat().st_size))
        (kept.parent / "new").replace(kept)

    assert remove_duplicates([first, second], models.locks, update) == [first]
    assert [models.verify_integrity(name).state for name in ("tiny", "other")] == [ModelState.COMPLETE] * 2


def test_m10_nobody_else_works_on_either_model_meanwhile(models: ModelEnsurer) -> None:
    found = find_duplicates(models.resolver)
    done: list[object] = []
    for name in ("tiny", "other"):
        with models.locks.hold(models.target(name).name.folder_name):
            worker = threading.Thread(target=lambda: done.extend(remove_duplicates(found, models.locks)))
            worker.start()
            worker.join(0.2)
            assert done == []
        worker.join()
        assert done
        done.clear()
        for path in (ENCODER, VAE):
            shutil.copy2(found[0].folder / path, found[0].folder / "copy")
            (found[0].folder / "copy").replace(found[0].folder / path)


def test_m10_a_file_that_is_in_use_is_passed_over(models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_duplicates(models.resolver)
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if target == found[0].path:
            raise PermissionError(13, "another process has it open")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert remove_duplicates(found, models.locks) == found[1:]
    assert [models.verify_integrity(name).state for name in ("tiny", "other")] == [ModelState.COMPLETE] * 2
    assert not [path for path in models.resolver.root.rglob("*.tmp") if path.is_file()]


def test_m10_a_root_may_be_called_versions(hub: Hub, tmp_path: Path) -> None:
    hub.add(OTHER, model_files(**{LARGE: some_bytes(5000, 77)}))
    models = ensurer(tmp_path / "versions", hub, two_models())
    models.ensure("tiny")
    other = models.ensure("other")
    shutil.copy2(other / VAE, other / "copy")
    (other / "copy").replace(other / VAE)
    (found,) = find_duplicates(models.resolver)
    assert found.models == ("other@1.0.0-original", "tiny@1.0.0-original")


def test_m10_removing_one_model_leaves_the_others_files(models: ModelEnsurer) -> None:
    remove_duplicates(find_duplicates(models.resolver), models.locks)
    models.usage.note(models.target("other").name)
    gc = ModelGc(models)
    gc.collect(gc.plan(GcPolicy(0, 100.0)))
    assert models.status("tiny").state is ModelState.NOT_PRESENT
    assert models.verify_integrity("other").state is ModelState.COMPLETE


def test_m10_where_nothing_can_be_linked_both_stay(models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "this file system has no links")

    monkeypatch.setattr(os, "link", refuse)
    found = find_duplicates(models.resolver)
    assert remove_duplicates(found, models.locks) == []
    assert [models.verify_integrity(name).state for name in ("tiny", "other")] == [ModelState.COMPLETE] * 2
    assert not [path for path in models.resolver.root.rglob("*.tmp") if path.is_file()]


def test_m10_sharing_never_replaces_a_file(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        share(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "b"


def test_m10_on_another_drive_a_link_by_name_must_do(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    source = elsewhere / f"wan-fixes-{os.getpid()}"
    source.write_text("model")
    try:
        assert not share(source, tmp_path / "hard")
        assert not (tmp_path / "hard").exists()
        assert share_or_point(source, tmp_path / "soft")
        assert (tmp_path / "soft").read_text() == "model"
    finally:
        source.unlink()
