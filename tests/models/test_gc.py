"""Room is made by what was not used for long; what is pinned or in use never goes (M9)."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from wan_fixes.models.disk_usage import disk_usage
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.gc import GcPlan, GcPolicy, ModelGc, Removable, remove_model
from wan_fixes.models.installed import REMOVING_NAME, VERIFIED_NAME, ModelState
from wan_fixes.models.json_file import write_json
from wan_fixes.models.quota import check_quota
from wan_fixes.models.versions import MigrationStrategy, ModelVersions

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import NEEDED_BYTES, REPOSITORY, content_of, ensurer, manifest_of, model_files, some_bytes, used_by_another

DAY = 86400.0
NAMES = ("one", "two", "three")


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> ModelEnsurer:
    """Three models with nothing in common, used 40, 20 and 0 days ago."""
    text = manifest_of().text.decode()
    parts = [text.replace("tiny@", f"{name}@").replace(REPOSITORY, f"A/{name}") for name in NAMES]
    weights = [path for path in whole() if path.endswith(".safetensors")]
    for number, name in enumerate(NAMES):
        changes = {path: some_bytes(70_000, 10 * number + at) for at, path in enumerate(weights)}
        hub.add(f"A/{name}", model_files(**changes))
    found = ensurer(
        tmp_path, hub, manifest_of("".join([parts[0], *(p.replace("schema_version = 1", "") for p in parts[1:])]))
    )
    for days, name in zip((40, 20, 0), NAMES, strict=True):
        found.ensure(name)
        used(found, name, days)
    return found


def used(models: ModelEnsurer, name: str, days_ago: float) -> None:
    at = time.time() - days_ago * DAY
    os.utime(models.resolver.state / "used" / models.target(name).name.folder_name, (at, at))


def collector(models: ModelEnsurer) -> ModelGc:
    return ModelGc(models)


def names(plan: GcPlan) -> list[tuple[str, str]]:
    return [(one.name.partition("@")[0], one.reason) for one in plan.removable]


def test_m9_what_was_not_used_for_a_month_goes_and_what_is_reclaimed_is_told(models: ModelEnsurer) -> None:
    gc = collector(models)
    free = sum(path.lstat().st_size for path in (models.resolver.root / "wan21").rglob("*") if path.is_file())
    plan = gc.plan()
    assert names(plan) == [("one", "age")]
    assert [models.status(name).state for name in NAMES] == [ModelState.COMPLETE] * 3  # nothing goes by planning
    assert gc.collect(plan) == plan.removable
    states = [models.status(name).state for name in NAMES]
    assert states == [ModelState.NOT_PRESENT, ModelState.COMPLETE, ModelState.COMPLETE]
    left = sum(path.lstat().st_size for path in (models.resolver.root / "wan21").rglob("*") if path.is_file())
    assert plan.reclaimed == pytest.approx(free - left, abs=20_000)  # less the record


def test_m9_beyond_the_quota_the_least_used_go_first_and_the_last_one_used_stays(models: ModelEnsurer) -> None:
    gc = collector(models)
    size = gc.plan().bytes // 3
    assert names(gc.plan(GcPolicy(2 * size + 100, 100.0))) == [("one", "size")]
    assert names(gc.plan(GcPolicy(size + 100, 100.0))) == [("one", "size"), ("two", "size")]
    plan = gc.plan(GcPolicy(0, 100.0))
    assert names(plan) == [("one", "size"), ("two", "size")]
    assert [(kept.name.partition("@")[0], kept.why) for kept in plan.kept] == [("three", "the last one used")]


def test_m9_what_is_pinned_stays(models: ModelEnsurer) -> None:
    models.usage.pin(models.target("one").name)
    plan = collector(models).plan(GcPolicy(0, 1.0))
    assert names(plan) == [("two", "age")]
    assert ("one@1.0.0#original", "pinned") in [(kept.name, kept.why) for kept in plan.kept]
    models.usage.unpin(models.target("one").name)
    assert ("one", "age") in names(collector(models).plan())


def test_m9_what_a_living_process_uses_stays_and_what_a_dead_one_used_goes(models: ModelEnsurer) -> None:
    with used_by_another(models, "one"):
        used(models, "one", 40)
        plan = collector(models).plan()
        assert names(plan) == [] and [kept.why for kept in plan.kept] == ["in use"]
    assert names(collector(models).plan()) == [("one", "age")]


def test_m9_what_began_to_be_used_after_the_plan_stays(models: ModelEnsurer) -> None:
    gc = collector(models)
    plan = gc.plan(GcPolicy(0, 30.0))
    assert names(plan) == [("one", "age"), ("two", "size")]
    models.ensure("one")
    with models.locks.hold(models.target("two").name.folder_name):
        assert gc.collect(plan) == ()
    assert [models.status(name).state for name in NAMES] == [ModelState.COMPLETE] * 3


def test_m9_a_file_of_the_users_in_a_models_folder_stays(models: ModelEnsurer) -> None:
    folder = models.target("one").folder
    (folder / "notes.txt").write_text("mine")
    gc = collector(models)
    gc.collect(gc.plan())
    assert content_of(folder) == {"notes.txt": b"mine"}
    assert models.status("one").state is ModelState.PARTIAL


def test_m9_a_removal_that_was_cut_off_is_finished_and_never_looks_complete(models: ModelEnsurer) -> None:
    folder = models.target("one").folder
    (folder / ".verified.json").replace(folder / ".removing.json")
    (folder / LARGE).unlink()
    assert models.status("one").state is ModelState.PARTIAL
    gc = collector(models)
    plan = gc.plan()
    assert [one.reason for one in plan.removable] == ["half removed"]
    gc.collect(plan)
    assert not folder.exists()


def test_m9_a_half_removed_model_that_is_wanted_again_is_not_removed(models: ModelEnsurer) -> None:
    folder = models.target("one").folder
    (folder / ".verified.json").replace(folder / ".removing.json")
    (folder / LARGE).unlink()
    models.ensure("one")
    gc = collector(models)
    gc.collect(gc.plan())
    assert models.status("one").state is ModelState.COMPLETE
    assert models.verify_integrity("one").state is ModelState.COMPLETE


def test_m9_an_abandoned_download_goes_by_age_and_a_fresh_one_stays(hub: Hub, models: ModelEnsurer) -> None:
    partial = models.resolver.temporary / "tiny@1.0.0-original.partial"
    partial.mkdir(parents=True)
    (partial / "model.safetensors.part").write_bytes(bytes(5000))
    assert names(collector(models).plan()) == [("one", "age")]
    for path in (partial / "model.safetensors.part", partial):
        os.utime(path, (1, 1))
    plan = collector(models).plan()
    assert Removable(partial, partial.name, "unfinished", 5000, 1.0) in plan.removable
    collector(models).collect(plan)
    assert not partial.exists()


def test_m9_a_file_that_another_model_has_too_frees_nothing(hub: Hub, tmp_path: Path) -> None:
    text = manifest_of().text.decode()
    other = text.replace("schema_version = 1", "").replace("tiny@1.0.0", "other@1.0.0")
    models = ensurer(tmp_path, hub, manifest_of(text + other))
    models.ensure("tiny")
    models.ensure("other")
    used(models, "tiny", 40)
    gc = collector(models)
    plan = gc.plan()
    shared = sum(len(content) for path, content in whole().items() if path.endswith(".safetensors"))
    assert plan.reclaimed == NEEDED_BYTES - shared
    gc.collect(plan)
    assert models.verify_integrity("other").state is ModelState.COMPLETE


def test_m9_a_half_removed_model_that_is_complete_again_after_the_plan_stays(models: ModelEnsurer) -> None:
    folder = models.target("one").folder
    (folder / VERIFIED_NAME).replace(folder / REMOVING_NAME)
    gc = collector(models)
    plan = gc.plan()
    models.ensure("one")
    assert gc.collect(plan) == ()
    assert models.status("one").state is ModelState.COMPLETE


def abandoned(models: ModelEnsurer) -> Path:
    """A download that somebody began long ago."""
    partial = models.resolver.temporary / "tiny@1.0.0-original.partial"
    partial.mkdir(parents=True)
    (partial / "model.safetensors.part").write_bytes(bytes(5000))
    age(partial)
    return partial


def age(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (1, 1))


def test_m9_a_download_that_went_on_after_the_plan_stays(models: ModelEnsurer) -> None:
    partial = abandoned(models)
    gc = collector(models)
    plan = gc.plan()
    (partial / "model.safetensors.part").write_bytes(bytes(6000))
    assert [one.reason for one in gc.collect(plan)] == ["age"]
    assert (partial / "model.safetensors.part").stat().st_size == 6000


def test_m9_what_is_gone_after_the_plan_does_not_keep_the_rest(models: ModelEnsurer) -> None:
    partial = abandoned(models)
    gc = collector(models)
    plan = gc.plan(GcPolicy(0, 30.0))
    assert [one.reason for one in plan.removable] == ["unfinished", "age", "size"]
    shutil.rmtree(partial)
    shutil.rmtree(models.target("one").folder)
    assert [one.reason for one in gc.collect(plan)] == ["size"]


def release(hub: Hub, name: str) -> None:
    repository = hub.repositories[f"A/{name}"]
    assert repository.head
    repository.files[LARGE] = some_bytes(70_000, 99)


def test_m9_a_revision_that_waits_is_no_unfinished_download(hub: Hub, models: ModelEnsurer) -> None:
    release(hub, "three")
    name = models.target("three").name
    models.usage.use(name)
    ModelVersions(models).update("three", strategy=MigrationStrategy.PARALLEL)
    waiting, note = models.resolver.next_folder(name), models.resolver.swap_note(name.folder_name)
    age(waiting)
    gc = collector(models)
    assert names(gc.plan()) == [("one", "age")]
    content = note.read_bytes()
    note.unlink()
    plan = gc.plan()
    assert [one.folder for one in plan.removable] == [waiting, models.target("one").folder]
    note.write_bytes(content)
    assert [one.reason for one in gc.collect(plan)] == ["age"]
    assert waiting.is_dir()


def test_m9_what_a_killed_update_put_aside_goes_whatever_its_age(models: ModelEnsurer) -> None:
    gone = models.resolver.temporary / f"{models.target('three').name.folder_name}.gone"
    shutil.copytree(models.target("three").folder, gone)
    gc = collector(models)
    plan = gc.plan()
    assert names(plan) == [("three", "unfinished"), ("one", "age")]
    with models.locks.hold(models.target("three").name.folder_name):
        assert [one.reason for one in gc.collect(plan)] == ["age"]
    gc.collect(gc.plan())
    assert not gone.exists()
    assert models.status("three").state is ModelState.COMPLETE


def test_m9_an_earlier_revision_counts_from_when_it_was_put_aside(hub: Hub, models: ModelEnsurer) -> None:
    release(hub, "three")
    folder, old = models.target("three").folder, models.status("three").revision
    os.utime(folder / VERIFIED_NAME, (1, 1))
    ModelVersions(models).update("three")
    kept = models.resolver.old_version_folder(models.target("three").name, old)
    gc = collector(models)
    assert names(gc.plan()) == [("one", "age")]
    at = time.time() - 31 * DAY
    os.utime(kept / VERIFIED_NAME, (at, at))
    plan = gc.plan()
    assert names(plan) == [("one", "age"), ("three", "old version")]
    gc.collect(plan)
    assert not kept.exists()
    assert models.verify_integrity("three").state is ModelState.COMPLETE


def test_m9_an_earlier_revision_that_was_put_aside_after_the_plan_stays(hub: Hub, models: ModelEnsurer) -> None:
    release(hub, "three")
    versions = ModelVersions(models)
    versions.update("three")
    kept = next((models.resolver.root / "versions").glob("three*/*"))
    os.utime(kept / VERIFIED_NAME, (1, 1))
    gc = collector(models)
    plan = gc.plan()
    (kept / VERIFIED_NAME).touch()
    assert [one.reason for one in gc.collect(plan)] == ["age"]
    assert kept.is_dir()


def test_m9_what_lies_elsewhere_too_does_not_make_others_go(models: ModelEnsurer, tmp_path: Path) -> None:
    gc = collector(models)
    size = gc.plan().bytes // 3
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, path in enumerate(content_of(models.target("one").folder)):
        os.link(models.target("one").folder / path, elsewhere / str(number))
    assert names(gc.plan(GcPolicy(2 * size + 100, 100.0))) == []
    assert names(gc.plan(GcPolicy(size + 100, 100.0))) == [("two", "size")]
    plan = gc.plan(GcPolicy(2 * size + 100, 30.0))
    assert (names(plan), plan.reclaimed) == ([("one", "age")], 0)


def test_m9_a_root_may_be_called_versions(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path / "versions", hub)
    models.ensure("tiny")
    used(models, "tiny", 40)
    models.usage.pin(models.target("tiny").name)
    gc = collector(models)
    assert [kept.why for kept in gc.plan().kept] == ["pinned"]
    models.usage.unpin(models.target("tiny").name)
    plan = gc.plan()
    assert names(plan) == [("tiny", "age")]
    gc.collect(plan)
    assert models.status("tiny").state is ModelState.NOT_PRESENT


@pytest.mark.parametrize("files", [["../../../victim.txt"], {"a.json": {}, "../../../victim.txt": {}}, [5], None])
def test_m9_a_record_that_is_not_sound_removes_no_file(tmp_path: Path, files: object) -> None:
    (tmp_path / "victim.txt").write_text("mine")
    folder = tmp_path / "models" / "wan21" / "tiny"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    write_json(folder / REMOVING_NAME, {"format": 1, "files": files})
    remove_model(folder)
    assert (tmp_path / "victim.txt").read_text() == "mine"
    assert content_of(folder) == {"a.json": b"{}"}


def test_m9_links_that_lead_nowhere_are_passed_over(models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = abandoned(models)
    (partial / "link").symlink_to(partial / "nothing")
    (models.target("one").folder / "link").symlink_to(partial / "nothing")
    monkeypatch.setenv("WAN_MODELS_QUOTA", "1GB")
    check_quota(models.resolver.root, 1)
    assert disk_usage(models, NAMES).unfinished == 5000
    assert names(collector(models).plan()) == [("one", "age")]


def test_m9_files_that_vanish_meanwhile_are_passed_over(models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_MODELS_QUOTA", "1GB")
    stop = threading.Event()
    places = [abandoned(models), models.target("one").folder]

    def work() -> None:
        while not stop.is_set():
            for place in places:
                for number in range(20):
                    (place / f"{number}.part").write_bytes(b"")
                for number in range(20):
                    (place / f"{number}.part").unlink()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(30):
            check_quota(models.resolver.root, 1)
            assert len(disk_usage(models, NAMES).models) == 3
            assert ("one", "age") in names(collector(models).plan())
    finally:
        stop.set()
        worker.join()
