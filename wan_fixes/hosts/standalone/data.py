"""The data side of a run: the pipeline built and opened epoch by epoch, and what became of each file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import xxhash

from wan_fixes.errors import NothingUsableError, SampleError
from wan_fixes.hosts.standalone.checkpoint import Progress
from wan_fixes.hosts.standalone.definition import build_definition, pipeline_settings
from wan_fixes.hosts.standalone.devices import Placement
from wan_fixes.hosts.standalone.host import HostRun
from wan_fixes.hosts.standalone.model import WanModel
from wan_fixes.hosts.standalone.preset import Preset
from wan_fixes.media import VIDEO_EXTENSIONS, is_sample, scan_folder
from wan_fixes.pipeline.base import MGDS, PipelineState, TrainDataLoader
from wan_fixes.pipeline.observing import observe
from wan_fixes.pipeline.upstream import is_collector, unwrap
from wan_fixes.plugins import call_hooks


class TrainingData:
    """Batches of latents and text embeddings, from the caches or made on the way.

    Parameters
    ----------
    start:
        Where training begins: epochs and batches before it are passed over.
    """

    def __init__(self, host: HostRun, model: WanModel, placement: Placement, start: Progress) -> None:
        preset = host.preset
        self._host = host
        self._placement = placement
        self._inline = not preset.latent_caching
        definition = build_definition(preset, model, host.context, use_part=placement.use)
        call_hooks(host.plugins, "onetrainer_rewrite_pipeline", definition=definition, context=host.context)
        self._state = PipelineState(preset.dataloader_threads)
        # On the CPU: whole clips are too large for a GPU that also holds the model. Encoders move what they take.
        self._dataset = MGDS(
            torch.device("cpu"),
            [concept.to_dict() for concept in preset.concepts],
            pipeline_settings(preset),
            definition,
            preset.batch_size,
            self._state,
            preset.seed,
            start.epoch,
            start.epoch_batch * preset.batch_size,
        )
        observe(self._dataset.loading_pipeline.modules, host.context, "training")
        self._loader = TrainDataLoader(self._dataset, preset.batch_size)
        self.digest = ""
        """Of the content and order of all valid samples."""
        self.example: dict[str, Any] | None = None
        """The first batch of this run."""

    def open_epoch(self) -> None:
        """Open the next epoch: what it needs and the caches lack is encoded now."""
        if self._inline:
            self.place_for_training()
        self._dataset.start_next_epoch()

    def place_for_training(self) -> None:
        """Put on the training device what training needs there, and all else off it."""
        self._placement.use("transformer", *(["vae", "text_encoder"] if self._inline else []))

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch, as far as it is known."""
        return int(self._dataset.approximate_length())

    def batches(self) -> Iterator[dict[str, Any]]:
        """The batches of the open epoch."""
        for batch in self._loader:
            if self.example is None:
                self.example = batch
            yield batch

    def record_samples(self) -> dict[str, int]:
        """Record every usable file as valid; returns how many files are valid, skipped and failed."""
        context, run = self._host.context, self._host.run
        collector = next(unwrap(m) for m in self._dataset.loading_pipeline.modules if is_collector(m))
        digest = xxhash.xxh3_128()
        for index in range(collector.length()):
            if not context.roster.is_dropped(index):
                digest.update(_content(context, collector.get_item(0, index)[collector.path_out_name]).encode())
        for path in context.usable_files(self._dataset.loading_pipeline.modules):
            run.sample(path, "valid")
        self.digest = digest.hexdigest()
        counts = self._host.database.sample_counts(run.id)
        return {status: counts[status] for status in ("valid", "skipped", "failed")}

    def close(self) -> None:
        """Let the loader threads go; what they have begun ends in its own time."""
        self._state.executor.shutdown(wait=False, cancel_futures=True)


def require_files(preset: Preset) -> None:
    """Raise ``NothingUsableError`` when no concept's folder holds a clip or picture, before any model is loaded.

    Not where a folder is missing, which only a cache that was carried here allows: it may have all that is needed.
    """
    if not all(Path(concept.path).is_dir() for concept in preset.concepts):
        return
    for concept in preset.concepts:
        for file in scan_folder(concept.path, recursive=concept.include_subdirectories).files:
            if is_sample(file):
                return
    folders = ", ".join(concept.path for concept in preset.concepts)
    recursive = all(concept.include_subdirectories for concept in preset.concepts)
    raise NothingUsableError(
        "there is nothing to train on",
        path=folders,
        reason="no folder of a concept holds a clip or a picture",
        fix=f"put clips ({', '.join(sorted(VIDEO_EXTENSIONS)[:4])}, …) there, or correct the concept's path"
        + ("" if recursive else ", or set include_subdirectories"),
    )


def _content(context: Any, path: str) -> str:
    try:
        return str(context.content_id(path))
    except SampleError:
        return ""  # gone since it was collected
