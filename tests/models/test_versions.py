"""Moving to a later revision and back: all or nothing, and a rollback is byte-exact (M11)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from effort import times

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import ModelState
from wan_fixes.models.locate import locate_model
from wan_fixes.models.sources.folder import FolderStore
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.hub_cache import HubCache
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.target import Target
from wan_fixes.models.versions import MigrationStrategy, ModelVersions

from .hub_server import Hub, running_hub
from .test_ensure import LARGE, whole
from .world import PART, REPOSITORY, content_of, ensurer, some_bytes, used_by_another

NEW = some_bytes(4 * PART + 3, 99)
CONFIG = "transformer/config.json"


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> ModelEnsurer:
    found = ensurer(tmp_path, hub)
    found.ensure("tiny")
    return found


def release(hub: Hub, **changes: bytes) -> dict[str, bytes]:
    """A later revision on the hub; returns what the model consists of then."""
    changes = {path.replace("__", "/").replace("_dot_", "."): content for path, content in changes.items()}
    changes = changes or {LARGE: NEW, CONFIG: b'{"num_layers": 31}'}
    repository = hub.repositories[REPOSITORY]
    assert repository.head
    repository.files.update(changes)
    assert repository.head
    hub.served.clear()
    return {**whole(), **changes}


def test_m11_a_page_for_people_is_no_update_and_moves_nothing(hub: Hub, models: ModelEnsurer) -> None:
    hub.repositories[REPOSITORY].files["README.md"] = b"more for people"
    hub.served.clear()
    info = ModelVersions(models).check("tiny")
    assert (info.is_available, info.bytes_needed) == (False, 0)
    assert info.revision != info.latest_revision == hub.repositories[REPOSITORY].head
    assert ModelVersions(models).update("tiny") is None
    assert hub.bytes_served == 0


def test_m11_an_update_is_found_and_nothing_is_changed_by_looking(hub: Hub, models: ModelEnsurer) -> None:
    release(hub)
    info = ModelVersions(models).check("tiny")
    assert info.changed == (CONFIG, LARGE)
    assert info.log == ("2026-01-02 change 1",)
    assert info.bytes_needed == len(NEW) + len(b'{"num_layers": 31}')
    assert content_of(models.target("tiny").folder) == whole()


@pytest.mark.parametrize("strategy", MigrationStrategy)
def test_m11_an_update_fetches_what_changed_and_can_be_undone(
    hub: Hub, models: ModelEnsurer, strategy: MigrationStrategy
) -> None:
    old = models.status("tiny").revision
    new = release(hub)
    versions = ModelVersions(models)
    change = versions.update("tiny", strategy=strategy)
    assert change is not None and change.changed == (CONFIG, LARGE)
    folder = models.target("tiny").folder
    assert content_of(folder) == new
    assert set(hub.served) == {LARGE, CONFIG}
    assert models.status("tiny").state is ModelState.COMPLETE
    assert models.status("tiny").revision == hub.repositories[REPOSITORY].head
    assert models.resolver.old_version_folder(models.target("tiny").name, old).exists() == (
        strategy is not MigrationStrategy.AGGRESSIVE
    )
    hub.served.clear()
    versions.rollback("tiny")
    assert content_of(folder) == whole()
    assert models.verify_integrity("tiny").state is ModelState.COMPLETE
    assert models.status("tiny").revision == old
    # What was not kept is fetched again.
    assert bool(hub.served) == (strategy is MigrationStrategy.AGGRESSIVE)
    assert [entry.action for entry in versions.history("tiny")] == ["update", "rollback"]
    assert list(models.resolver.temporary.iterdir()) == []


def test_m11_back_and_forth_by_revision(hub: Hub, models: ModelEnsurer) -> None:
    versions, folder = ModelVersions(models), models.target("tiny").folder
    states = [(models.status("tiny").revision, whole())]
    for seed in (7, 8):
        new = release(hub, **{LARGE: some_bytes(3 * PART, seed)})
        versions.update("tiny")
        states.append((models.status("tiny").revision, new))
    for revision, content in (states[0], states[2], states[1], states[0]):
        versions.rollback("tiny", revision=revision[:10])
        assert content_of(folder) == content
        assert models.status("tiny").revision == revision
    with pytest.raises(ModelError, match="no such earlier revision") as caught:
        versions.rollback("tiny", revision="0" * 12)
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_m11_a_failed_update_leaves_everything_as_it_was(hub: Hub, models: ModelEnsurer) -> None:
    before = models.status("tiny")
    new = release(hub)
    hub.fail("status", "storage", 99, (404, {}))
    with pytest.raises(ModelError):
        ModelVersions(models).update("tiny")
    assert content_of(models.target("tiny").folder) == whole()
    assert models.status("tiny") == before
    assert ModelVersions(models).history("tiny") == []
    hub.faults.clear()
    ModelVersions(models).update("tiny")
    assert content_of(models.target("tiny").folder) == new


def test_m11_a_source_that_no_longer_has_a_component_is_no_update(hub: Hub, models: ModelEnsurer) -> None:
    files = hub.repositories[REPOSITORY].files
    for path in [path for path in files if path.startswith("vae/")]:
        del files[path]
    with pytest.raises(ModelError) as caught:
        ModelVersions(models).update("tiny")
    assert caught.value.code is ErrorCode.MISSING_FILES
    assert content_of(models.target("tiny").folder) == whole()


def test_m11_a_model_in_use_is_not_moved_but_may_wait(hub: Hub, models: ModelEnsurer) -> None:
    new = release(hub)
    versions, target = ModelVersions(models), models.target("tiny")
    with used_by_another(models, "tiny"):
        with pytest.raises(ModelError, match="parallel") as caught:
            versions.update("tiny")
        assert caught.value.code is ErrorCode.IN_USE
        assert hub.bytes_served == 0
        versions.update("tiny", strategy=MigrationStrategy.PARALLEL)
        assert content_of(target.folder) == whole()
        models.ensure("tiny")
        assert content_of(target.folder) == whole()
    models.ensure("tiny")
    assert content_of(target.folder) == new
    assert [entry.action for entry in versions.history("tiny")] == ["update"]
    assert hub.bytes_served == len(new[LARGE]) + len(new[CONFIG])


def test_m11_a_model_in_use_is_told_so_also_where_another_source_follows(
    hub: Hub, tmp_path: Path, models: ModelEnsurer
) -> None:
    """What says the old revision, such as the hub client's cache, does not make it up to date."""
    release(hub)
    both = ensurer(tmp_path, hub, make_sources=lambda target: [hub_store(hub, target), HubCache(target.variant.hub)])
    models.usage.use(models.target("tiny").name)
    with pytest.raises(ModelError) as caught:
        ModelVersions(both).update("tiny")
    assert caught.value.code is ErrorCode.IN_USE


def test_m11_only_a_source_that_can_know_says_what_is_the_latest(
    hub: Hub, tmp_path: Path, models: ModelEnsurer
) -> None:
    release(hub)
    share = FolderStore(models.target("tiny").folder)
    local_first = ensurer(tmp_path, hub, make_sources=lambda target: [share, hub_store(hub, target)])
    assert ModelVersions(local_first).check("tiny").is_available
    hub.fail("status", "/api/", 99, (503, {}))
    with pytest.raises(ModelError) as caught:
        ModelVersions(ensurer(tmp_path, hub, make_sources=lambda target: [hub_store(hub, target), share])).check("tiny")
    assert caught.value.code is ErrorCode.SERVER_ERROR


def test_m11_a_training_that_starts_gets_the_revision_that_waited(
    hub: Hub, tmp_path: Path, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = release(hub)
    with monkeypatch.context() as patch:
        patch.setattr(models.usage, "is_in_use", lambda _: True)
        patch.setattr(models.swapper, "_is_in_use", lambda _: True)
        ModelVersions(models).update("tiny", strategy=MigrationStrategy.PARALLEL)
    assert content_of(models.target("tiny").folder) == whole()
    (tmp_path / "tiny.toml").write_bytes(models.manifest.text)
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(tmp_path / "tiny.toml"))
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path))
    folder = locate_model("WAN_2_1_T2V_1_3B", "tiny", lambda _: None)
    assert folder is not None and content_of(Path(folder)) == new
    assert models.usage.is_in_use(models.target("tiny").name.folder_name)


def test_m11_a_second_update_while_one_waits_takes_its_place(
    hub: Hub, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(models.swapper, "_is_in_use", lambda _: True)
        release(hub)
        ModelVersions(models).update("tiny", strategy=MigrationStrategy.PARALLEL)
        newest = release(hub, **{LARGE: some_bytes(2 * PART, 5)})
        hub.fail("status", "storage", 99, (404, {}))
        with pytest.raises(ModelError):
            ModelVersions(models).update("tiny", strategy=MigrationStrategy.PARALLEL)
        hub.faults.clear()
    models.ensure("tiny")
    assert content_of(models.target("tiny").folder) == whole()  # a half-made revision never takes the place
    ModelVersions(models).update("tiny")
    assert content_of(models.target("tiny").folder)[LARGE] == newest[LARGE]


def test_m11_what_waited_and_is_gone_changes_nothing(
    hub: Hub, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(hub)
    with monkeypatch.context() as patch:
        patch.setattr(models.swapper, "_is_in_use", lambda _: True)
        ModelVersions(models).update("tiny", strategy=MigrationStrategy.PARALLEL)
    shutil.rmtree(models.resolver.next_folder(models.target("tiny").name))
    before = models.status("tiny")
    models.ensure("tiny")
    assert models.status("tiny") == before
    assert ModelVersions(models).history("tiny") == []


@pytest.mark.parametrize("revision", ["../../..", "..\\..", "/", "C:", "x" * 150])
def test_m11_a_revision_is_no_path(hub: Hub, tmp_path: Path, revision: str) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    models = ensurer(tmp_path / "deep" / "models", hub)
    hub.fail("listing revision", "/api/", 1, revision)
    models.ensure("tiny")
    assert models.status("tiny").revision == revision
    release(hub)
    versions = ModelVersions(models)
    versions.update("tiny")
    versions.rollback("tiny")
    versions.rollback("tiny")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "mine.txt"]
    kept = models.resolver.old_version_folder(models.target("tiny").name, revision)
    assert models.resolver.root in kept.parents and content_of(kept) == whole()


@pytest.mark.parametrize("revision", ["", 5, "a\nb", "x" * 300])
def test_m11_what_is_no_revision_is_refused(hub: Hub, tmp_path: Path, revision: object) -> None:
    hub.fail("listing revision", "/api/", 9, revision)
    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path, hub).ensure("tiny")
    assert caught.value.code is ErrorCode.BAD_REPLY


def hub_store(hub: Hub, target: Target) -> HubStore:
    policy = RetryPolicy(attempts=1, base_seconds=0.001)
    return HubStore(target.variant.hub, endpoint=hub.address, token="", retry=policy)


# Dies at the moment of the step that it is told, as a power cut would have it.
DIES = """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from tests.models.world import ensurer
    from wan_fixes.models.versions import ModelVersions
    class Hub:
        address = sys.argv[2]
    steps = int(sys.argv[4])
    def count(event, arguments):
        global steps
        if event in ("os.rename", "os.link", "os.remove", "os.mkdir") and ".locks" not in str(arguments):
            steps -= 1
            if steps < 0:
                os.kill(os.getpid(), 9)
    models = ensurer(Path(sys.argv[3]), Hub)
    act = getattr(ModelVersions(models), sys.argv[5])
    sys.addaudithook(count)
    act("tiny")
    print("done")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed by a signal")
@pytest.mark.parametrize("action", ["update", "rollback"])
def test_m11_a_kill_at_any_step_leaves_the_old_or_the_new_model_whole(hub: Hub, tmp_path: Path, action: str) -> None:
    checkout = str(Path(__file__).resolve().parent.parent.parent)
    script = textwrap.dedent(DIES)
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    new = release(hub)
    if action == "rollback":
        ModelVersions(models).update("tiny")
    steps, finished = 0, False
    # Another server, which what the killed have asked for can never reach late.
    with running_hub() as another:
        another.repositories = hub.repositories
        while not finished:
            arguments = [sys.executable, "-c", script, checkout, hub.address, str(tmp_path), str(steps), action]
            environment = {**os.environ, "PYTHONPATH": checkout}
            child = subprocess.run(arguments, capture_output=True, text=True, env=environment)
            finished = child.returncode == 0
            assert finished or child.returncode == -9, child.stderr
            models = ensurer(tmp_path, another)
            models.ensure("tiny")
            assert another.requests == []  # whichever it is, it is whole, and nothing of it is fetched
            assert content_of(folder) in (whole(), new)
            assert models.verify_integrity("tiny").state is ModelState.COMPLETE
            if (content_of(folder) == new) == (action == "update"):
                finished = True
            steps += times(8, 1)
    assert (content_of(folder) == new) == (action == "update")
    assert len(ModelVersions(models).history("tiny")) == (1 if action == "update" else 2)
