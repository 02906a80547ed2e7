"""A folder of clips into a cache, as training goes about it: what the benchmarks of that measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wan_fixes.media import VIDEO_EXTENSIONS
from wan_fixes.pipeline import (
    PipelineContext,
    RobustVideoLoader,
    SafeVideoFrameSampler,
    ValidatedCollectPaths,
    ValidatedDiskCache,
    rewrite_definition,
)
from wan_fixes.pipeline.base import (
    ConceptPipelineModule,
    LoadingPipeline,
    OutputPipelineModule,
    PipelineModule,
    PipelineState,
    RandomAccessPipelineModule,
    SettingsPipelineModule,
)

FRAMES = 81
PATH_NAMES = ("concept", "path", "concept.include_subdirectories", "enabled", "image_path", "concept")
"""The first arguments of a collector of paths, ours or MGDS's."""


class Step(PipelineModule, RandomAccessPipelineModule):
    """Makes the items `gives` of the item `reads`, by `work`; as many as there are of `reads`."""

    CACHE_VERSION = 1  # it makes the same of the same

    def __init__(self, reads: str, gives: tuple[str, ...], work: Callable[[Any], dict[str, Any]]) -> None:
        super().__init__()
        self.reads = reads
        self.gives = list(gives)
        self.work = work

    def length(self) -> int:
        return int(self._get_previous_length(self.reads))

    def get_inputs(self) -> list[str]:
        return [self.reads]

    def get_outputs(self) -> list[str]:
        return self.gives

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return self.work(self._get_previous_item(variation, self.reads, index))


def shrunk(image: torch.Tensor) -> dict[str, torch.Tensor]:
    """A small part of a clip, in place of a latent."""
    return {"latent": image[:, ::4, ::8, ::8].clone()}


def caching_definition(
    cache: Path, context: PipelineContext, between: Callable[[RobustVideoLoader], list[Any]]
) -> list[Any]:
    """Ours, from paths to cached latents; `between(loader)` makes the latent of the loader's image."""
    sampler = SafeVideoFrameSampler("image_path", "settings.frames", "plan", 24.0, context=context)
    loader = RobustVideoLoader(
        "image_path", "settings.frames", "image", dtype=torch.bfloat16, context=context, frame_plan_in_name="plan"
    )
    definition = [
        ValidatedCollectPaths(*PATH_NAMES, VIDEO_EXTENSIONS, None, None, context=context),
        sampler,
        loader,
        *between(loader),
        ValidatedDiskCache(str(cache), ["latent"], ["image_path"], context=context),
        OutputPipelineModule(["latent", "image_path"]),
    ]
    rewrite_definition(definition, context)
    return definition


def pipeline_over(folder: Path, definition: list[Any], threads: int) -> LoadingPipeline:
    """A pipeline over one concept, not started yet."""
    concept = {"path": str(folder), "enabled": True, "include_subdirectories": False, "loss_weight": 1.0}
    first = [ConceptPipelineModule([concept]), SettingsPipelineModule({"frames": str(FRAMES)})]
    return LoadingPipeline(torch.device("cpu"), [*first, *definition], 1, 0, PipelineState(threads))
