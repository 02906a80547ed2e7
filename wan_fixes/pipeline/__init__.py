"""The validated MGDS modules, what they share, and the rewrite table that swaps them in for the stock ones."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wan_fixes.pipeline.batch_sorting import SafeAspectBatchSorting, SafeInlineAspectBatchSorting
    from wan_fixes.pipeline.cache_stats import CacheStats
    from wan_fixes.pipeline.captions import ValidatedCaptionLoader
    from wan_fixes.pipeline.collect_paths import ValidatedCollectPaths
    from wan_fixes.pipeline.context import PipelineContext
    from wan_fixes.pipeline.disk_cache import ValidatedDiskCache
    from wan_fixes.pipeline.encode_vae import RobustTemporalVAE
    from wan_fixes.pipeline.guard import EnhancedSafePipelineModule
    from wan_fixes.pipeline.load_image import ValidatedImageLoader
    from wan_fixes.pipeline.load_video import RobustVideoLoader
    from wan_fixes.pipeline.rewrite import RewriteReport, rewrite_definition
    from wan_fixes.pipeline.roster import SampleRoster
    from wan_fixes.pipeline.sample_frames import SafeVideoFrameSampler
    from wan_fixes.pipeline.validator import DataFlowValidator, ValidationResult
    from wan_fixes.pipeline.variation_sorting import SafeVariationSorting

# Each public name and the module that holds it: imported on first use, since most of them import torch.
_HOMES = {
    "CacheStats": "cache_stats",
    "DataFlowValidator": "validator",
    "EnhancedSafePipelineModule": "guard",
    "PipelineContext": "context",
    "RewriteReport": "rewrite",
    "RobustTemporalVAE": "encode_vae",
    "RobustVideoLoader": "load_video",
    "SafeAspectBatchSorting": "batch_sorting",
    "SafeInlineAspectBatchSorting": "batch_sorting",
    "SafeVariationSorting": "variation_sorting",
    "SafeVideoFrameSampler": "sample_frames",
    "SampleRoster": "roster",
    "ValidatedCaptionLoader": "captions",
    "ValidatedCollectPaths": "collect_paths",
    "ValidatedDiskCache": "disk_cache",
    "ValidatedImageLoader": "load_image",
    "ValidationResult": "validator",
    "rewrite_definition": "rewrite",
}

__all__ = [
    "CacheStats",
    "DataFlowValidator",
    "EnhancedSafePipelineModule",
    "PipelineContext",
    "RewriteReport",
    "RobustTemporalVAE",
    "RobustVideoLoader",
    "SafeAspectBatchSorting",
    "SafeInlineAspectBatchSorting",
    "SafeVariationSorting",
    "SafeVideoFrameSampler",
    "SampleRoster",
    "ValidatedCaptionLoader",
    "ValidatedCollectPaths",
    "ValidatedDiskCache",
    "ValidatedImageLoader",
    "ValidationResult",
    "rewrite_definition",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
