"""The names of older projects, each a few lines over the real classes (M6, M11, M12)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.models.compatibility import ModelCompatibility
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.facades import (
    EnhancedModelManager,
    MigrationStrategy,
    ModelLoadingResult,
    ModelRegistry,
    WANModelUpdater,
    WANWeightManager,
    ensure_wan_model_weights,
    get_wan_model_weight_status,
    get_wan_weight_manager,
)
from wan_fixes.models.facades.in_thread import in_thread
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fallbacks import FallbackKind, GenerationMode, WantedSettings
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.installed import ModelState
from wan_fixes.models.manifest import Manifest, load_manifest
from wan_fixes.models.paths import WanPaths

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .test_nearby import OTHER, two_models
from .test_repair import spoil
from .world import NEEDED_BYTES, PART, PARTS, REPOSITORY, content_of, ensurer, manifest_of, model_files, some_bytes

NAME = "tiny@1.0.0#original"
LARGE_MACHINE = Hardware("a large one", 10**15, 10**15, 10**15, 10**15)
SMALL_CLIP = WantedSettings(frames=5, height=128, width=128)


class Loaded:
    """What a loader makes; unlike `object` it can be referred to weakly."""

    def __init__(self, paths: WanPaths, wanted: WantedSettings) -> None:
        self.paths = paths
        self.wanted = wanted


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def family_of_two() -> Manifest:
    """`tiny`, which falls back on `other`, a tenth of its size."""
    text = two_models().text.decode()
    one, other = text.split('[models."other@1.0.0"]')
    one = one.replace('"vae"]\n', '"vae"]\nfallbacks = ["other"]\n', 1)
    other = other.replace("transformer_billions = 1.4", "transformer_billions = 0.14")
    return manifest_of(
        f'{one}[models."other@1.0.0"]{other.replace("text_encoder_billions = 5.7", "text_encoder_billions = 0.57")}'
    )


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> ModelEnsurer:
    """Of `tiny` and `other`."""
    hub.add(OTHER, model_files(**{LARGE: some_bytes(5000, 77)}))
    return ensurer(tmp_path / "models", hub, family_of_two())


@pytest.fixture
def manager(models: ModelEnsurer) -> EnhancedModelManager:
    return EnhancedModelManager(models, measure=lambda: LARGE_MACHINE)


@pytest.fixture
def weights(models: ModelEnsurer) -> WANWeightManager:
    return WANWeightManager(models)


# ModelRegistry


def test_m6_the_registry_knows_models_by_id_version_and_variant() -> None:
    registry = ModelRegistry()
    spec = registry.spec("t2v-A14B")
    assert spec is registry.spec("T2V-a14b", "2.2.0", "original") is registry.spec("t2v-A14B@2.2.0#original")
    assert registry.spec("Wan-AI/Wan2.2-T2V-A14B-Diffusers") is spec
    assert {str(name) for name in registry.list_models()} >= {"t2v-A14B@2.2.0#original", "t2v-1.3B@2.1.0#original"}
    for wrong in (("t2v-A15B",), ("t2v-A14B", "9.9"), ("t2v-A14B", None, "fp8")):
        with pytest.raises(ModelError) as caught:
            registry.spec(*wrong)
        assert caught.value.code is ErrorCode.UNKNOWN_MODEL


def test_m1_the_registry_names_all_that_is_wrong_with_a_manifest(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(manifest_of().text.decode().replace('"wan21"', '"wan3"').replace("layers = 30", ""))
    problems = ModelRegistry.validate_manifest(bad)
    assert len(problems) == 2 and "family" in problems[0] and "layers" in problems[1]
    assert ModelRegistry.validate_manifest() == []
    assert "No such file" in ModelRegistry.validate_manifest(tmp_path / "absent.toml")[0]


# EnhancedModelManager


def test_m12_a_model_is_fetched_checked_loaded_and_let_go(hub: Hub, manager: EnhancedModelManager) -> None:
    assert manager.get_model_status("tiny").state is ModelState.NOT_PRESENT
    result = manager.load_model("tiny", Loaded, SMALL_CLIP)
    assert result.is_loaded and result.error is None and result.failed == () and result.seconds >= 0
    assert result.fallback_used is None and str(result.name) == NAME
    assert (result.model.paths.root / LARGE).read_bytes() == model_files()[LARGE]
    assert result.model.wanted == SMALL_CLIP
    assert manager.ensurer.usage.is_in_use(result.name.folder_name)
    assert manager.load_model("tiny@1.0.0", Loaded, SMALL_CLIP) is result
    assert list(manager.loaded_models) == [result.name]
    model = weakref.ref(result.model)
    del result
    assert manager.unload_model("tiny") and manager.loaded_models == {}
    assert model() is None
    assert not manager.unload_model("tiny")


def test_m12_what_the_manifest_says_of_a_model(manager: EnhancedModelManager) -> None:
    released = EnhancedModelManager(ModelEnsurer(load_manifest(), manager.ensurer.resolver))
    metadata = released.get_model_metadata("t2v-1.3B")
    assert (str(metadata.name), metadata.mode) == ("t2v-1.3B@2.1.0#original", GenerationMode.T2V)
    assert metadata.defaults["fps"] == 16 and metadata.bytes is not None and round(metadata.bytes / 1e9, 1) == 28.9
    assert manager.get_model_metadata("tiny").bytes is None


def test_m12_a_check_says_what_stands_against_a_model(manager: EnhancedModelManager) -> None:
    assert manager.check_model_compatibility("tiny", SMALL_CLIP).level is not ModelCompatibility.INCOMPATIBLE
    image = dataclasses.replace(SMALL_CLIP, mode=GenerationMode.I2V)
    assert manager.check_model_compatibility("tiny", image).level is ModelCompatibility.INCOMPATIBLE


def test_m12_what_no_memory_would_help_is_neither_fetched_nor_loaded(hub: Hub, manager: EnhancedModelManager) -> None:
    called: list[Any] = []
    for wanted in (
        dataclasses.replace(SMALL_CLIP, mode=GenerationMode.I2V),
        dataclasses.replace(SMALL_CLIP, width=130),
    ):
        result = manager.load_model("tiny", lambda *given: called.append(given), wanted)
        assert not result.is_loaded and isinstance(result.error, ModelError)
        assert result.error.code is ErrorCode.INVALID_CONFIG and result.error.reason and result.error.fix
    with pytest.raises(ModelError, match="precision"):
        manager.load_model("tiny", Loaded, dataclasses.replace(SMALL_CLIP, precision="fp3"))
    with pytest.raises(ModelError, match="the manifest has other, tiny"):
        manager.load_model("absent", Loaded)
    assert (called, hub.requests) == ([], [])


def totals(models: ModelEnsurer) -> dict[FallbackKind, int]:
    """Bytes of the GPU that each way takes; of several offloads the largest."""
    target = models.target("tiny")
    manager = EnhancedModelManager(models, measure=lambda: dataclasses.replace(LARGE_MACHINE, vram_free=0))
    found: dict[FallbackKind, int] = {}
    for way in manager.check_model_compatibility(str(target.name), SMALL_CLIP).tried:
        found.setdefault(way.kind, way.estimate.total)
    return found


@pytest.mark.parametrize("kind", [FallbackKind.QUANTISED, FallbackKind.SMALLER_MODEL])
def test_m12_what_does_not_fit_is_not_tried_and_the_first_that_does_is(
    models: ModelEnsurer, kind: FallbackKind
) -> None:
    free = totals(models)[kind]
    manager = EnhancedModelManager(models, measure=lambda: dataclasses.replace(LARGE_MACHINE, vram_free=free))
    result = manager.load_model("tiny", Loaded, SMALL_CLIP)
    assert result.fallback_used is kind and result.failed == ()
    assert result.used is not None and result.used.fits
    precision, name = result.model.wanted.precision, result.model.paths.name.model_id
    assert (precision, name) == (("fp8", "tiny") if kind is FallbackKind.QUANTISED else ("bf16", "other"))


def test_m12_where_memory_runs_out_the_next_way_with_less_is_taken(manager: EnhancedModelManager) -> None:
    tried = []

    def loader(paths: WanPaths, wanted: WantedSettings) -> Loaded:
        tried.append((paths.name.model_id, wanted.precision, wanted.offload))
        if len(tried) < 3:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return Loaded(paths, wanted)

    result = manager.load_model("tiny", loader, SMALL_CLIP)
    assert tried == [("tiny", "bf16", 0.0), ("tiny", "fp8", 0.0), ("other", "bf16", 0.0)]
    assert result.fallback_used is FallbackKind.SMALLER_MODEL and result.used is not None
    assert result.used.model == "other@1.0.0" and result.error is None
    assert [text.partition(":")[0] for text in result.failed] == ["tiny@1.0.0", "tiny@1.0.0 in fp8"]


def test_m12_what_had_been_loaded_when_memory_ran_out_is_freed_for_the_next_way(manager: EnhancedModelManager) -> None:
    begun: list[weakref.ref[Loaded]] = []
    alive = []

    def first_part(paths: WanPaths, wanted: WantedSettings) -> Loaded:
        part = Loaded(paths, wanted)
        begun.append(weakref.ref(part))
        if len(begun) == 1:
            raise OutOfMemoryError("out of memory")
        return part

    def loader(paths: WanPaths, wanted: WantedSettings) -> Loaded:
        alive.append([reference() is not None for reference in begun])
        try:
            return first_part(paths, wanted)
        except OutOfMemoryError as error:
            raise RuntimeError("the model cannot be loaded") from error

    assert manager.load_model("tiny", loader, SMALL_CLIP).fallback_used is FallbackKind.QUANTISED
    assert alive == [[], [False]]


def test_m12_only_fallbacks_that_are_allowed_are_taken(hub: Hub, manager: EnhancedModelManager) -> None:
    def loader(paths: WanPaths, wanted: WantedSettings) -> Loaded:
        raise OutOfMemoryError("out of memory")

    result = manager.load_model("tiny", loader, SMALL_CLIP, fallbacks=[FallbackKind.QUANTISED])
    assert not result.is_loaded and len(result.failed) == 2
    assert isinstance(result.error, OutOfMemoryError)
    assert not hub.asked(OTHER)


def test_m12_an_error_that_is_no_lack_of_memory_ends_it_at_once(hub: Hub, manager: EnhancedModelManager) -> None:
    def loader(paths: WanPaths, wanted: WantedSettings) -> Loaded:
        raise KeyError("blocks.0.attn\x1b[31m")

    result = manager.load_model("tiny", loader, SMALL_CLIP)
    assert isinstance(result.error, KeyError) and len(result.failed) == 1 and "\x1b" not in result.failed[0]
    assert not hub.asked(OTHER) and manager.loaded_models == {}
    assert manager.load_model("tiny", Loaded, SMALL_CLIP).is_loaded


def test_m12_a_model_that_cannot_be_had_is_not_replaced_by_another(hub: Hub, manager: EnhancedModelManager) -> None:
    hub.fail("status", REPOSITORY, 999, (404, {}))
    result = manager.load_model("tiny", Loaded, SMALL_CLIP)
    assert isinstance(result.error, ModelError) and len(result.failed) == 1
    assert not hub.asked(OTHER)


def test_m12_a_smaller_model_that_cannot_be_had_is_passed_over(hub: Hub, manager: EnhancedModelManager) -> None:
    hub.fail("status", OTHER, 999, (404, {}))
    tried = []

    def loader(paths: WanPaths, wanted: WantedSettings) -> Loaded:
        tried.append((wanted.precision, wanted.offload))
        if not wanted.offload:
            raise OutOfMemoryError("out of memory")
        return Loaded(paths, wanted)

    result = manager.load_model("tiny", loader, SMALL_CLIP)
    assert [text.partition(":")[0] for text in result.failed] == ["tiny@1.0.0", "tiny@1.0.0 in fp8", "other@1.0.0"]
    # 25 and 50 % offloaded take more of the GPU than fp8 does, for which there was not enough.
    assert tried == [("bf16", 0.0), ("fp8", 0.0), ("bf16", 0.75)]
    assert result.fallback_used is FallbackKind.CPU_OFFLOAD


def test_m12_a_model_without_one_of_its_components_is_not_loaded(hub: Hub, manager: EnhancedModelManager) -> None:
    index = {"_class_name": "WanPipeline", **PARTS, "vae": [None, None]}
    hub.repositories[REPOSITORY].files["model_index.json"] = json.dumps(index).encode()
    called: list[Any] = []
    result = manager.load_model("tiny", lambda *given: called.append(given), SMALL_CLIP)
    assert isinstance(result.error, ModelError) and result.error.code is ErrorCode.MISSING_FILES
    assert called == []


def test_m12_threads_that_ask_at_once_get_one_model(manager: EnhancedModelManager) -> None:
    made = []
    results: list[ModelLoadingResult] = []
    ready = threading.Barrier(4)

    def loader(paths: WanPaths, wanted: WantedSettings) -> Loaded:
        made.append(Loaded(paths, wanted))
        return made[-1]

    def ask() -> None:
        ready.wait(10)
        results.append(manager.load_model("tiny", loader, SMALL_CLIP))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1 and [result.model for result in results] == made * 4


# WANWeightManager


def test_m6_weights_are_fetched_verified_and_mended(hub: Hub, weights: WANWeightManager) -> None:
    async def journey() -> None:
        folder = weights.ensurer.target("tiny").folder
        assert await weights.download_model_weights("tiny")
        assert await weights.verify_model_integrity("tiny")
        assert weights.ensurer.usage.last_used(folder.name) is not None
        spoil(folder / LARGE, 3)
        hub.served.clear()
        assert await weights.download_model_weights("tiny", verify_integrity=False)  # nothing shows it yet
        assert not await weights.verify_model_integrity("tiny")
        assert hub.bytes_served == 0
        assert await weights.download_model_weights("tiny", force_redownload=True, verify_integrity=False)
        assert hub.served == {LARGE: PART}
        assert await weights.verify_model_integrity("tiny")

    asyncio.run(journey())


def test_m6_why_weights_cannot_be_had_is_kept_and_a_wrong_name_is_raised(
    hub: Hub, weights: WANWeightManager, caplog: pytest.LogCaptureFixture
) -> None:
    async def journey() -> None:
        hub.fail("status", "", 999, (404, {}))
        assert not await weights.download_model_weights("tiny")
        assert weights.last_errors["tiny"].code is ErrorCode.NOT_FOUND and "404" in caplog.text
        hub.faults.clear()
        assert await weights.download_model_weights("tiny")
        assert weights.last_errors == {}
        with pytest.raises(ModelError, match="the manifest has"):
            await weights.download_model_weights("absent")

    asyncio.run(journey())


def test_m9_what_is_in_the_cache_and_what_goes(
    models: ModelEnsurer, weights: WANWeightManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def journey() -> None:
        assert (await weights.get_model_cache_info()).models == ()
        for name in ("tiny", "other"):
            assert await weights.download_model_weights(name)
        [tiny] = (await weights.get_model_cache_info("tiny")).models
        assert tiny.name == "tiny@1.0.0" and tiny.bytes == NEEDED_BYTES
        assert len((await weights.get_model_cache_info()).models) == 2
        models.usage.pin(models.target("other").name)
        planned = await weights.cleanup_cache(retention_days=0, dry_run=True)
        assert ([one.name for one in planned.planned], planned.removed, planned.bytes_freed) == ([NAME], (), 0)
        assert models.target("tiny").folder.is_dir()
        monkeypatch.setenv("WAN_MODELS_QUOTA", "1kB")
        assert [one.reason for one in (await weights.cleanup_cache(dry_run=True)).planned] == ["size"]
        assert (await weights.cleanup_cache(max_size_gb=50)).planned == ()
        done = await weights.cleanup_cache(max_size_gb=50, retention_days=0)
        assert [one.name for one in done.removed] == [NAME] and [one.why for one in done.kept] == ["pinned"]
        assert done.bytes_before > done.bytes_freed > 0
        assert not models.target("tiny").folder.exists() and models.status("other").state is ModelState.COMPLETE

    asyncio.run(journey())


def test_m15_cancelled_fetching_stops_and_goes_on_from_there(hub: Hub, weights: WANWeightManager) -> None:
    async def journey() -> None:
        some = asyncio.Event()
        loop = asyncio.get_running_loop()
        hub.at_bytes = (4 * PART, lambda: loop.call_soon_threadsafe(some.set))
        hub.fail("slow", LARGE, 99, 0.05)
        task = asyncio.create_task(weights.download_model_weights("tiny"))
        await asyncio.wait_for(some.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        name = weights.ensurer.target("tiny").name
        assert not weights.ensurer.locks.is_held(name.folder_name)
        hub.settle()
        assert weights.ensurer.status("tiny").state is ModelState.PARTIAL
        assert 0 < weights.ensurer.status("tiny").bytes_there < NEEDED_BYTES
        hub.faults.clear()
        assert await weights.download_model_weights("tiny")

    asyncio.run(journey())


def test_m15_cancelled_waiting_for_another_process_ends(hub: Hub, weights: WANWeightManager) -> None:
    async def journey() -> None:
        ensurer = weights.ensurer
        with ensurer.locks.hold(ensurer.target("tiny").name.folder_name):
            download = weights.download_model_weights("tiny", verify_integrity=False)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(download, 0.1)
        assert hub.requests == []

    asyncio.run(journey())


@pytest.mark.parametrize("work", ["verify_model_integrity", "download_model_weights"])
def test_m15_cancelled_reading_stops_at_once(weights: WANWeightManager, work: str) -> None:
    async def journey() -> None:
        assert await weights.download_model_weights("tiny", verify_integrity=False)
        loop = asyncio.get_running_loop()
        began, go_on, read = asyncio.Event(), threading.Event(), []

        def came(progress: Any) -> None:
            read.append(progress)
            loop.call_soon_threadsafe(began.set)
            go_on.wait(20)

        task = asyncio.create_task(getattr(weights, work)("tiny", on_progress=came))
        await asyncio.wait_for(began.wait(), 20)
        task.cancel()
        await asyncio.sleep(0)  # so that the task hears of it
        seen = len(read)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(read) == seen
        assert not weights.ensurer.locks.is_held(weights.ensurer.target("tiny").name.folder_name)
        assert weights.ensurer.status("tiny").state is ModelState.COMPLETE

    asyncio.run(journey())


def test_m15_the_loop_goes_on_while_work_blocks_and_a_second_cancellation_waits_no_longer() -> None:
    async def journey() -> None:
        released, stops = threading.Event(), []

        def work(stop: threading.Event) -> None:
            stops.append(stop)
            released.wait(20)

        task = asyncio.create_task(in_thread(work))
        while not stops:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert stops[0].is_set() and not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not released.is_set()
        released.set()

    asyncio.run(journey())


# WANModelUpdater


def release(hub: Hub) -> None:
    repository = hub.repositories[REPOSITORY]
    assert repository.head
    repository.files[LARGE] = some_bytes(PART, 5)
    assert repository.head


@pytest.mark.parametrize("strategy", MigrationStrategy)
def test_m11_updates_are_found_taken_and_undone(
    hub: Hub, weights: WANWeightManager, strategy: MigrationStrategy
) -> None:
    async def journey() -> None:
        updater = WANModelUpdater(weights)
        assert await updater.check_for_updates() == [] == await updater.get_version_history("tiny")
        await weights.download_model_weights("tiny")
        folder = weights.ensurer.target("tiny").folder
        before = content_of(folder)
        [first] = await updater.get_version_history("tiny")
        assert first.is_current and first.since is None
        release(hub)
        [info] = await updater.check_for_updates()
        assert info.is_available and info.changed == (LARGE,) and info.name == NAME
        assert await updater.update_model("tiny", strategy=strategy)
        assert (folder / LARGE).read_bytes() == some_bytes(PART, 5)
        assert await updater.update_model("tiny")  # it has the latest one
        versions = await updater.get_version_history("tiny")
        assert [version.is_current for version in versions] == [False, True]
        assert versions[1].revision == info.latest_revision and versions[1].changelog and versions[1].since
        assert await updater.rollback_model("tiny", first.revision[:8])
        assert content_of(folder) == before
        assert [version.is_current for version in await updater.get_version_history("tiny")] == [False, False, True]
        assert await updater.update_model("tiny")
        *earlier, last = await updater.get_version_history("tiny")
        assert last.is_current and last.revision == info.latest_revision
        assert [version.is_current for version in earlier] == [False, False, False]

    asyncio.run(journey())


def test_m11_a_model_that_is_pinned_and_not_there_has_no_version(models: ModelEnsurer) -> None:
    released = WANModelUpdater(WANWeightManager(ModelEnsurer(load_manifest(), models.resolver)))
    assert released.weight_manager.ensurer.status("t2v-1.3B").revision
    assert asyncio.run(released.get_version_history("t2v-1.3B")) == []


def test_m11_a_move_that_fails_leaves_the_model_as_it_was(hub: Hub, weights: WANWeightManager) -> None:
    async def journey() -> None:
        updater = WANModelUpdater(weights)
        assert not await updater.update_model("tiny")  # it is not there
        assert weights.last_errors["tiny"].code is ErrorCode.MISSING_FILES
        assert await updater.check_for_updates("tiny") == []
        await weights.download_model_weights("tiny")
        before = content_of(weights.ensurer.target("tiny").folder)
        release(hub)
        hub.fail("status", "/storage/", 999, (404, {}))
        assert not await updater.update_model("tiny")
        assert not await updater.rollback_model("tiny", "feedbeef")
        assert weights.last_errors["tiny"].code is ErrorCode.NOT_FOUND
        assert content_of(weights.ensurer.target("tiny").folder) == before
        assert weights.ensurer.status("tiny").state is ModelState.COMPLETE

    asyncio.run(journey())


# Weights in one call


def test_m6_weights_in_one_call_as_the_environment_says(cli_root: Path, hub: Hub, tmp_path: Path) -> None:
    async def journey() -> None:
        assert not await ensure_wan_model_weights("tiny", auto_download=False)
        assert hub.requests == []
        assert await ensure_wan_model_weights("tiny")
        assert (await get_wan_model_weight_status("tiny")).state is ModelState.COMPLETE
        assert await ensure_wan_model_weights("tiny", auto_download=False)
        assert content_of(cli_root / "wan21" / "tiny@1.0.0-original") == whole()
        elsewhere = await get_wan_weight_manager(tmp_path / "elsewhere")
        assert elsewhere.ensurer.resolver.root == tmp_path / "elsewhere"
        assert not await ensure_wan_model_weights("tiny", auto_download=False, manager=elsewhere)
        assert await ensure_wan_model_weights("tiny", manager=elsewhere)
        assert (tmp_path / "elsewhere" / "wan21").is_dir()

    asyncio.run(journey())


def test_m6_importing_the_facades_loads_no_torch() -> None:
    program = "import sys, wan_fixes.models.facades; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
