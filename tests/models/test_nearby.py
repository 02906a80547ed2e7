"""What this machine has already is linked and not fetched: from other models, the hub's cache, folders (M4, M10)."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import FetchOptions
from wan_fixes.models.installed import ModelState
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.manifest import Manifest
from wan_fixes.models.nearby import link_files
from wan_fixes.models.sources.folder import FolderStore
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.hub_cache import HubCache
from wan_fixes.models.sources.order import sources_of
from wan_fixes.models.sources.resting import RestingSources
from wan_fixes.models.sources.source import Source
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.spec import HubSource
from wan_fixes.models.target import Target

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import PART, REPOSITORY, content_of, ensurer, manifest_of, model_files, some_bytes

ENCODER = "text_encoder/model.safetensors"
OTHER = "Wan-AI/Other-Diffusers"


def two_models() -> Manifest:
    """`tiny`, and `other`, which has the same encoder and another transformer."""
    one = manifest_of().text.decode()
    other = one.replace("schema_version = 1", "").replace("tiny@1.0.0", "other@1.0.0").replace(REPOSITORY, OTHER)
    return manifest_of(one + other)


@pytest.fixture
def cached(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub client's cache, filled by the client itself."""
    folder = tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    revision = hub.repositories[REPOSITORY].head
    snapshot_download(REPOSITORY, revision=revision, endpoint=hub.address, cache_dir=folder, token=False)
    hub.served.clear()
    return folder


def test_m10_a_file_of_another_model_is_linked_and_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.add(OTHER, model_files(**{LARGE: some_bytes(5000, 77)}))
    models = ensurer(tmp_path, hub, two_models())
    one = models.ensure("tiny")
    hub.served.clear()
    other = models.ensure("other")
    assert (one / ENCODER).samefile(other / ENCODER)
    assert ENCODER not in hub.served and LARGE in hub.served
    assert content_of(other)[LARGE] == some_bytes(5000, 77)
    assert models.status("other").state is ModelState.COMPLETE


def test_m10_a_spoilt_file_of_another_model_is_not_linked(hub: Hub, tmp_path: Path) -> None:
    hub.add(OTHER, model_files(**{LARGE: some_bytes(5000, 77)}))
    models = ensurer(tmp_path, hub, two_models())
    path = models.ensure("tiny") / ENCODER
    state = path.stat()
    path.write_bytes(bytes(len(path.read_bytes())))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # nothing shows it but its content
    other = models.ensure("other")
    assert (other / ENCODER).read_bytes() == model_files()[ENCODER]


def test_m4_the_hubs_cache_is_used_and_not_duplicated(cached: Path, hub: Hub, tmp_path: Path) -> None:
    folder = ensurer(tmp_path / "models", hub).ensure("tiny")
    assert content_of(folder) == whole()
    blob = cached / "models--Wan-AI--Tiny-Diffusers" / "blobs" / hashlib.sha256(model_files()[LARGE]).hexdigest()
    assert (folder / LARGE).samefile(blob)
    assert LARGE not in hub.served and ENCODER not in hub.served


def test_m4_with_the_hubs_cache_alone_a_model_is_had_offline(
    cached: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    hub.requests.clear()
    manifest = manifest_of(revision=hub.repositories[REPOSITORY].head)
    models = ensurer(tmp_path / "models", hub, manifest, make_sources=lambda target: sources_of(target, RetryPolicy()))
    assert content_of(models.ensure("tiny")) == whole()
    assert hub.requests == []


def test_m4_a_cache_that_lacks_a_file_is_no_model_offline(
    cached: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    for path in cached.rglob("vae/*"):
        path.unlink()
    manifest = manifest_of(revision=hub.repositories[REPOSITORY].head)
    models = ensurer(tmp_path / "models", hub, manifest, make_sources=lambda target: sources_of(target, RetryPolicy()))
    with pytest.raises(ModelError, match="vae") as caught:
        models.ensure("tiny")
    assert caught.value.code is ErrorCode.MISSING_FILES


def test_m4_a_spoilt_blob_is_fetched_instead(cached: Path, hub: Hub, tmp_path: Path) -> None:
    blob = cached / "models--Wan-AI--Tiny-Diffusers" / "blobs" / hashlib.sha256(model_files()[LARGE]).hexdigest()
    blob.write_bytes(bytes(blob.stat().st_size))
    assert content_of(ensurer(tmp_path / "models", hub).ensure("tiny")) == whole()
    assert LARGE in hub.served


def write_model(folder: Path, **changes: bytes) -> Path:
    for path, content in {**whole(), **changes}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.mark.parametrize("layout", ["wan21/tiny@1.0.0-original", "Tiny-Diffusers", "Wan-AI/Tiny-Diffusers"])
def test_m4_a_local_folder_comes_first_and_needs_no_server(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    share = write_model(tmp_path / "share" / layout)
    monkeypatch.setenv("WAN_MODELS_LOCAL", os.pathsep.join([str(tmp_path / "absent"), str(tmp_path / "share")]))
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    models = ensurer(tmp_path / "models", hub, make_sources=lambda target: sources_of(target, RetryPolicy()))
    folder = models.ensure("tiny")
    assert content_of(folder) == whole() == content_of(share)
    assert (folder / LARGE).samefile(share / LARGE)
    assert hub.requests == []


def test_m4_a_local_folder_is_copied_where_it_cannot_be_linked(hub: Hub, tmp_path: Path) -> None:
    share = write_model(tmp_path / "share")
    models = ensurer(tmp_path / "models", hub, make_sources=lambda target: [FolderStore(share)])
    folder = models.ensure("tiny")
    assert content_of(folder) == whole()
    assert not (folder / LARGE).samefile(share / LARGE)
    assert {file.path: file.sha256 for file in models.lock("tiny").files} == {
        path: hashlib.sha256(content).hexdigest() for path, content in whole().items()
    }


def test_m4_a_local_folder_with_another_file_than_the_pinned_one_is_passed_over(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ensurer(tmp_path / "models", hub)
    models.lock("tiny")
    write_model(tmp_path / "share" / "Tiny-Diffusers", **{LARGE: bytes(10 << 16)})
    monkeypatch.setenv("WAN_MODELS_LOCAL", str(tmp_path / "share"))
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    policy = RetryPolicy(attempts=1, base_seconds=0.001)
    models = ensurer(tmp_path / "models", hub, make_sources=lambda target: sources_of(target, policy))
    assert content_of(models.ensure("tiny")) == whole()


@pytest.mark.parametrize("feature", ["link_from_hub_cache", "link_from_other_models"])
def test_m16_what_is_switched_off_is_fetched(
    cached: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feature: str
) -> None:
    monkeypatch.setenv("WAN_MODELS_FEATURES", f"{feature}=off")
    hub.add(OTHER, model_files(**{LARGE: some_bytes(5000, 77)}))
    models = ensurer(tmp_path, hub, two_models())
    models.ensure("tiny")
    assert (LARGE in hub.served) == (feature == "link_from_hub_cache")
    hub.served.clear()
    models.ensure("other")
    assert (ENCODER in hub.served) == (feature == "link_from_other_models")


def test_m7_what_no_other_source_can_help_with_ends_it(hub: Hub, tmp_path: Path) -> None:
    def sources(target: Target) -> list[Source]:
        return [HubStore(target.variant.hub, endpoint=hub.address, token="") for _ in range(2)]

    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path, hub, make_sources=sources, safety_margin=1 << 60).ensure("tiny")
    assert caught.value.code is ErrorCode.NO_SPACE
    assert hub.asked("/api/") == 1


def test_m7_a_source_that_just_failed_is_asked_last() -> None:
    now = [0.0]
    resting = RestingSources(60.0, clock=lambda: now[0])
    error = ModelError(ErrorCode.SERVER_ERROR, "down")
    resting.failed("s3", error)
    resting.failed("hub", ModelError(ErrorCode.RATE_LIMIT, "slow down", retry_after=120.0))
    assert (resting.why("s3"), resting.why("folder")) == (error, None)
    now[0] = 61.0
    assert resting.why("s3") is None and resting.why("hub") is not None
    resting.worked("hub")
    assert resting.why("hub") is None


def test_m7_after_a_failure_the_other_source_is_asked_first_and_the_resting_one_if_that_fails(
    hub: Hub, tmp_path: Path
) -> None:
    asked: list[str] = []

    class Named(HubStore):
        def __init__(self, target: Target, name: str) -> None:
            super().__init__(target.variant.hub, endpoint=hub.address, token="", retry=RetryPolicy(attempts=0))
            self.name = name

        @property
        def label(self) -> str:
            return self.name

        def listing(self, revision: str | None = None) -> object:  # type: ignore[override]
            asked.append(self.name)
            return super().listing(revision)

    def sources(target: Target) -> list[Source]:
        return [Named(target, "mirror"), Named(target, "hub")]

    models = ensurer(tmp_path, hub, make_sources=sources)
    hub.fail("status", "/api/", 2, (500, {}))
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert caught.value.code is ErrorCode.ALL_SOURCES_FAILED
    assert "mirror" in caught.value.reason and "hub" in caught.value.reason
    asked.clear()
    hub.fail("status", "/api/", 1, (500, {}))
    models.lock("tiny")
    assert asked == ["mirror", "hub"]
    assert isinstance(models.options, FetchOptions)


def test_m4_the_hubs_cache_is_found_as_the_client_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert HubCache(HubSource("A/B")).folder == tmp_path / "hub" / "models--A--B"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_m4_a_file_that_cannot_be_linked_is_fetched(
    cached: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    assert content_of(ensurer(tmp_path / "models", hub).ensure("tiny")) == whole()
    assert LARGE in hub.served


def test_m4_a_file_that_went_away_since_it_was_read_is_left_to_a_source(tmp_path: Path) -> None:
    share = write_model(tmp_path / "share")
    content = model_files()[LARGE]
    file = RemoteFile(LARGE, len(content), hashlib.sha256(content).hexdigest())

    def came(count: int, path: str) -> None:
        (share / path).unlink(missing_ok=True)

    assert link_files([file], [FolderStore(share)], tmp_path / "new", PART, came=came) == {}
    assert not (tmp_path / "new" / LARGE).exists()


def test_m4_a_link_of_an_earlier_start_whose_file_is_gone_makes_room(cached: Path, hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path / "models", hub)
    path = models.target("tiny").partial / LARGE
    path.parent.mkdir(parents=True)
    try:
        path.symlink_to(tmp_path / "gone")
    except OSError:
        pytest.skip("no right to make links")
    assert content_of(models.ensure("tiny")) == whole()
    assert LARGE not in hub.served


@pytest.mark.parametrize("place", ["folder", "cache"])
def test_m4_a_place_that_cannot_be_looked_at_has_nothing(tmp_path: Path, place: str) -> None:
    file = RemoteFile("a" * 300, 1, "b" * 64)  # no file system takes such a name, which it says by an error
    cache = HubCache(HubSource("A/B"), tmp_path)
    (cache.folder / "snapshots" / "main").mkdir(parents=True)
    assert list((FolderStore(tmp_path) if place == "folder" else cache).paths_of(file)) == []


def test_m4_a_cache_without_links_is_had_offline_and_read_once(
    cached: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the client lays it out on Windows without the right to make links."""
    for path in [path for path in cached.rglob("*") if path.is_symlink()]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    shutil.rmtree(next(cached.glob("*/blobs")))
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    manifest = manifest_of(revision=hub.repositories[REPOSITORY].head)
    models = ensurer(tmp_path / "models", hub, manifest, make_sources=lambda target: sources_of(target, RetryPolicy()))
    folder = models.ensure("tiny")
    assert content_of(folder) == whole()
    snapshot = next(cached.glob("*/snapshots/*"))
    assert (folder / LARGE).samefile(snapshot / LARGE)
    # What was read is believed as long as it is as it was then.
    store = HubCache(HubSource(REPOSITORY, snapshot.name))
    [large] = [file for file in store.listing().files if file.path == LARGE]
    assert store.record_at(snapshot / LARGE) is not None
    (snapshot / LARGE).write_bytes(b"another")
    assert store.record_at(snapshot / LARGE) is None
    assert link_files([large], [store], tmp_path / "new", PART) == {}


def test_m4_the_hubs_cache_may_be_named_relative_to_the_current_folder(
    cached: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", "hf/hub")

    def other_drive(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another drive")

    monkeypatch.setattr(os, "link", other_drive)
    folder = ensurer(tmp_path / "models", hub).ensure("tiny")
    assert content_of(folder) == whole() and LARGE not in hub.served


def test_m7_a_folders_revision_is_another_one_when_its_files_are(tmp_path: Path) -> None:
    share = write_model(tmp_path / "share")
    before = [FolderStore(share, with_digests=read).listing().revision for read in (False, True)]
    assert [FolderStore(share, with_digests=read).listing().revision for read in (False, True)] == before
    write_model(share, **{LARGE: bytes(10 * PART)})
    after = [FolderStore(share, with_digests=read).listing().revision for read in (False, True)]
    assert not set(before) & set(after)
