"""Filling the cache of a preset, without training: for a machine that shall only train, or before it is free."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wan_fixes.errors import UserError
from wan_fixes.health import total
from wan_fixes.hosts.standalone.checkpoint import Progress
from wan_fixes.hosts.standalone.data import TrainingData, require_files
from wan_fixes.hosts.standalone.devices import Placement, pick_device, weight_dtypes
from wan_fixes.hosts.standalone.host import EventListener, HostRun, open_run
from wan_fixes.hosts.standalone.model import load_model
from wan_fixes.hosts.standalone.preset import Preset
from wan_fixes.hosts.standalone.result import SampleRemark
from wan_fixes.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What filling a cache came to.

    Attributes
    ----------
    epochs:
        How many epochs were looked at for variations.
    valid, skipped, failed:
        How many files are cached, could not be used, and failed unexpectedly.
    cache_hits, cache_misses:
        Items (latents and text embeddings) that were there, and that had to be made, over all these epochs.
    seconds:
        How long it took, loading included.
    """

    run_id: int
    epochs: int
    valid: int
    skipped: int
    failed: int
    left_out: tuple[SampleRemark, ...]
    cache_hits: int
    cache_misses: int
    seconds: float


def build_cache(
    preset: Preset, *, settings: Settings | None = None, on_event: EventListener | None = None
) -> BuildResult:
    """Bring into the cache what training from the preset needs, with the variations of all its epochs.

    It is a run of its own (`cache`) in the run database. Settings and events are those of `trainer.train`.

    Raises
    ------
    UserError
        If the preset trains without a cache, or the model folder, the concepts, or every clip cannot be used.
    CriticalError
        If it cannot go on: memory, disk.
    KeyboardInterrupt
        After Ctrl-C; what is done is kept.
    """
    if not preset.latent_caching:
        raise UserError(
            "there is no cache to build",
            path=preset.path,
            reason='"latent_caching" is off: training encodes each sample anew in each epoch',
            fix="switch it on",
        )
    began = time.monotonic()
    require_files(preset)
    with open_run(preset, settings, on_event, kind="cache") as host:
        return _build(host, began)


def _build(host: HostRun, began: float) -> BuildResult:
    preset = host.preset
    host.emit("run_started", preset=str(preset.path), workspace=str(preset.workspace_dir), config=preset.to_dict())
    host.locate_model()
    host.before_model_load()
    with host.loading():
        model = load_model(preset.base_model_name, preset.variant, dtypes=weight_dtypes(preset), encoders_only=True)
    data = TrainingData(host, model, Placement(model, pick_device(preset)), Progress())
    epochs = epochs_until_all_variations(preset)
    host.emit("caching_started", latent_caching=True)
    host.monitor.enter("caching", should_move=True)
    try:
        for _ in range(epochs):
            data.open_epoch()
        counts = data.record_samples()
    finally:
        data.close()
    values = host.context.metrics.snapshot()
    hits, misses = round(total(values, "cache_hits")), round(total(values, "cache_misses"))
    host.emit("caching_finished", **counts, cache_hits=hits, cache_misses=misses)
    host.emit("run_finished", run_id=host.run.id, cache_hits=hits, cache_misses=misses, **counts)
    return BuildResult(
        run_id=host.run.id,
        epochs=epochs,
        **counts,
        left_out=host.remarks("skipped") + host.remarks("failed"),
        cache_hits=hits,
        cache_misses=misses,
        seconds=time.monotonic() - began,
    )


def epochs_until_all_variations(preset: Preset) -> int:
    """After so many epochs of the preset's no later one needs anything new.

    An epoch goes over all samples of a concept at least `balancing` times, each time with the next variation. Where
    it is less than once, or the concept gives a number of samples instead, how many epochs that takes hangs on the
    number of files: then it is all of them.
    """
    concepts = [concept for concept in preset.concepts if concept.enabled]
    needed = 1
    for concept in concepts:
        variations = max(concept.image_variations, concept.text_variations)
        if variations > 1:
            is_whole = concept.balancing_strategy == "REPEATS" and concept.balancing >= 1
            needed = max(needed, variations if is_whole else preset.epochs)
    return min(needed, preset.epochs)
