"""Room is made by what was not used for long; what is pinned or in use never goes (M9)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.gc import GcPlan, GcPolicy, ModelGc, Removable
from wan_fixes.models.installed import ModelState

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import NEEDED_BYTES, REPOSITORY, content_of, ensurer, manifest_of, model_files, some_bytes

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
    code = (
        "import sys, time; from pathlib import Path; from wan_fixes.models.layout import ModelResolver;"
        "from wan_fixes.models.locks import LockManager; from wan_fixes.models.names import ModelName;"
        "from wan_fixes.models.usage import UsageLog; resolver = ModelResolver(Path(sys.argv[1]));"
        "UsageLog(resolver, LockManager(resolver.locks)).use(ModelName('one', '1.0.0', 'original'));"
        "print('used', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(models.resolver.root)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline().strip() == b"used"
        used(models, "one", 40)
        plan = collector(models).plan()
        assert names(plan) == [] and [kept.why for kept in plan.kept] == ["in use"]
    finally:
        child.kill()
        child.communicate()
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
