"""The rewrite table: which validated module stands in for which stock one, in any pipeline definition."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from wan_fixes.pipeline.base import (
    OutputPipelineModule,
    PipelineModule,
    RandomAccessPipelineModule,
    SerialPipelineModule,
    SingleVariationRandomAccessPipelineModule,
)
from wan_fixes.pipeline.batch_sorting import SafeAspectBatchSorting, SafeInlineAspectBatchSorting
from wan_fixes.pipeline.captions import ValidatedCaptionLoader
from wan_fixes.pipeline.chunk_clips import chunk_clips
from wan_fixes.pipeline.collect_paths import ValidatedCollectPaths
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.disk_cache import ValidatedDiskCache
from wan_fixes.pipeline.encode_vae import RobustTemporalVAE
from wan_fixes.pipeline.fit_to_bucket import fit_to_bucket
from wan_fixes.pipeline.guard import EnhancedSafePipelineModule
from wan_fixes.pipeline.load_image import ValidatedImageLoader
from wan_fixes.pipeline.load_video import RobustVideoLoader
from wan_fixes.pipeline.sample_frames import SafeVideoFrameSampler
from wan_fixes.pipeline.upstream import is_stock
from wan_fixes.pipeline.variation_sorting import SafeVariationSorting

logger = logging.getLogger(__name__)

# Modules that put samples in order and leave samples out: they recover by themselves, and a guard would hide
# from the engine what they tell it (their lengths change). The output module is found by its name.
# The collector is asked by every module that reads a concept's setting, of each sample, and gives what it has listed.
UNGUARDED = (
    ValidatedCollectPaths,
    ValidatedDiskCache,
    SafeVariationSorting,
    SafeAspectBatchSorting,
    SafeInlineAspectBatchSorting,
)

# The engine asks modules of these kinds alone for items.
RUNNABLE = (RandomAccessPipelineModule, SingleVariationRandomAccessPipelineModule, SerialPipelineModule)

# None is an answer for these: a sample need not have a conditioning image of its own, nor every encoder a pooled state.
OPTIONAL_ITEMS = frozenset({"custom_conditioning_image", "latent_conditioning_image", "pooled_state"})

# What the items of OneTrainer's definitions are, where it does not depend on the model.
EXPECTED_TYPES: dict[str, type] = {
    "image": torch.Tensor,
    "mask": torch.Tensor,
    "latent_image": torch.Tensor,
    "latent_mask": torch.Tensor,
    "tokens": torch.Tensor,
    "prompt": str,
    "image_path": str,
    "crop_resolution": tuple,
    "scale_resolution": tuple,
    "original_resolution": tuple,
}


@dataclass(slots=True)
class RewriteReport:
    """What became of a definition: how many modules of each kind were replaced, guarded, and left alone."""

    replaced: Counter[str] = field(default_factory=Counter)
    guarded: Counter[str] = field(default_factory=Counter)
    untouched: Counter[str] = field(default_factory=Counter)
    not_runnable: dict[str, list[str]] = field(default_factory=dict)
    """By class: the items of modules that are of no kind that the engine runs. They count as untouched."""

    def __str__(self) -> str:
        parts = [f"{sum(c.values())} {name}" for name, c in self._counters() if c]
        return ", ".join(parts) + (f" ({', '.join(sorted(self.replaced))})" if self.replaced else "")

    def _counters(self) -> list[tuple[str, Counter[str]]]:
        return [("replaced", self.replaced), ("guarded", self.guarded), ("untouched", self.untouched)]


def _collect_paths(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [
        ValidatedCollectPaths(
            concept_in_name=stock.concept_in_name,
            path_in_name=stock.path_in_name,
            include_subdirectories_in_name=stock.include_subdirectories_in_name,
            enabled_in_name=stock.enabled_in_name,
            path_out_name=stock.path_out_name,
            concept_out_name=stock.concept_out_name,
            extensions=stock.extensions,
            include_postfix=stock.include_postfix,
            exclude_postfix=stock.exclude_postfix,
            context=context,
        )
    ]


def _load_video(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    plan_name = f"{stock.video_out_name}_frame_plan"
    sampler = SafeVideoFrameSampler(
        path_in_name=stock.path_in_name,
        target_frame_count_in_name=stock.target_frame_count_in_name,
        frame_plan_out_name=plan_name,
        target_frame_rate=stock.target_frame_rate,
        supported_extensions=stock.supported_extensions,
        context=context,
    )
    loader = RobustVideoLoader(
        path_in_name=stock.path_in_name,
        target_frame_count_in_name=stock.target_frame_count_in_name,
        video_out_name=stock.video_out_name,
        range_min=stock.range_min,
        range_max=stock.range_max,
        target_frame_rate=stock.target_frame_rate,
        supported_extensions=stock.supported_extensions,
        dtype=stock.dtype,
        context=context,
        frame_plan_in_name=plan_name,
    )
    return [sampler, loader]


def _load_image(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [
        ValidatedImageLoader(
            path_in_name=stock.path_in_name,
            image_out_name=stock.image_out_name,
            range_min=stock.range_min,
            range_max=stock.range_max,
            supported_extensions=stock.supported_extensions,
            channels=1 if stock.pillow_mode == "L" else 3,
            dtype=stock.dtype,
            context=context,
        )
    ]


def _load_text(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [ValidatedCaptionLoader(stock.path_in_name, stock.text_out_name, first_line_only=True, context=context)]


def _load_multiple_texts(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [ValidatedCaptionLoader(stock.path_in_name, stock.texts_out_name, context=context)]


def _encode_vae(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [
        RobustTemporalVAE(
            in_name=stock.in_name,
            out_name=stock.out_name,
            vae=stock.vae,
            autocast_contexts=stock.autocast_contexts,
            dtype=stock.dtype,
            context=context,
        )
    ]


def _disk_cache(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [
        ValidatedDiskCache(
            cache_dir=stock.cache_dir,
            split_names=stock.split_names,
            aggregate_names=stock.aggregate_names,
            variations_in_name=stock.variations_in_name,
            balancing_in_name=stock.balancing_in_name,
            balancing_strategy_in_name=stock.balancing_strategy_in_name,
            variations_group_in_name=stock.variations_group_in_names,
            group_enabled_in_name=stock.group_enabled_in_name,
            before_cache_fun=stock.before_cache_fun,
            context=context,
        )
    ]


def _variation_sorting(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [
        SafeVariationSorting(
            names=stock.names,
            balancing_in_name=stock.balancing_in_name,
            balancing_strategy_in_name=stock.balancing_strategy_in_name,
            variations_group_in_name=stock.variations_group_in_names,
            group_enabled_in_name=stock.group_enabled_in_name,
            context=context,
        )
    ]


def _batch_sorting(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [SafeAspectBatchSorting(stock.resolution_in_name, stock.names, stock.batch_size, context=context)]


def _inline_batch_sorting(stock: Any, context: PipelineContext) -> list[PipelineModule]:
    return [SafeInlineAspectBatchSorting(stock.resolution_in_name, stock.names, stock.batch_size, context=context)]


REPLACEMENTS: dict[str, Callable[[Any, PipelineContext], list[PipelineModule]]] = {
    "CollectPaths": _collect_paths,
    "LoadVideo": _load_video,
    "LoadImage": _load_image,
    "LoadText": _load_text,
    "LoadMultipleTexts": _load_multiple_texts,
    "EncodeVAE": _encode_vae,
    "DiskCache": _disk_cache,
    "VariationSorting": _variation_sorting,
    "AspectBatchSorting": _batch_sorting,
    "InlineAspectBatchSorting": _inline_batch_sorting,
}


def rewrite_definition(definition: list[Any], context: PipelineContext) -> RewriteReport:
    """Swap the stock modules of a (nested) definition for validated ones, in place, and guard the others.

    A stock module is one whose class comes from ``mgds`` and has a name in the table: a host's or another
    plugin's own subclass is guarded, not replaced. A module that lacks an attribute of the stock one (a newer
    mgds) is left as it is, guarded, and logged. One that is of no kind that the engine runs is left as it is too, and
    warned of: nobody gets an item from it.
    """
    report = RewriteReport()
    _rewrite(definition, context, report)
    chunk_clips(definition, context)
    for name in fit_to_bucket(definition, context, lambda module: _guarded(module, type(module).__name__, context)):
        report.replaced[name] += report.guarded.pop(name)
    logger.info("pipeline modules: %s", report)
    for name, items in report.not_runnable.items():
        logger.warning(
            "%s is of no kind that the pipeline can run: nobody gets %s from it, and the modules after it may train "
            "on something else",
            name,
            ", ".join(sorted(set(items))) or "an item",
        )
    return report


def _rewrite(definition: list[Any], context: PipelineContext, report: RewriteReport) -> None:
    for position, part in enumerate(definition):
        if isinstance(part, list):
            _rewrite(part, context, report)
        elif isinstance(part, PipelineModule):
            replaced = [_guard(module, context, report) for module in _replace(part, context, report)]
            definition[position] = replaced[0] if len(replaced) == 1 else replaced


def _replace(module: PipelineModule, context: PipelineContext, report: RewriteReport) -> list[PipelineModule]:
    name = type(module).__name__
    if not is_stock(module) or name not in REPLACEMENTS:
        return [module]
    try:
        replacement = REPLACEMENTS[name](module, context)
    except AttributeError as error:
        logger.warning("%s is not the module that is known here (%s): it is guarded, not replaced", name, error)
        return [module]
    report.replaced[name] += 1
    return replacement


def _guard(module: PipelineModule, context: PipelineContext, report: RewriteReport) -> PipelineModule:
    name = type(module).__name__
    is_output = isinstance(module, OutputPipelineModule) or name == "OutputPipelineModule"
    if is_output or isinstance(module, (*UNGUARDED, EnhancedSafePipelineModule, SerialPipelineModule)):
        report.untouched[name] += 1
        return module
    if not isinstance(module, RUNNABLE):
        report.untouched[name] += 1
        report.not_runnable.setdefault(name, []).extend(module.get_outputs())
        return module
    report.guarded[name] += 1
    return _guarded(module, name, context)


def _guarded(module: PipelineModule, name: str, context: PipelineContext) -> EnhancedSafePipelineModule:
    return EnhancedSafePipelineModule(
        module,
        name,
        max_failures=context.settings.max_consecutive_failures,
        context=context,
        optional_names=OPTIONAL_ITEMS,
        expected_types=EXPECTED_TYPES,
    )
