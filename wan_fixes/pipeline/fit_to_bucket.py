"""Rewrites loading, measuring and scaling together: clips are then decoded at the size that their bucket asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wan_fixes.pipeline.base import PipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.load_image import ValidatedImageLoader
from wan_fixes.pipeline.load_video import RobustVideoLoader
from wan_fixes.pipeline.sample_frames import SafeVideoFrameSampler
from wan_fixes.pipeline.scale_crop import MeasuredAspect, SafeScaleCrop
from wan_fixes.pipeline.upstream import input_names, is_stock, unwrap

MEASURES, SCALES = "CalcAspect", "ScaleCropImage"
"""Stock's modules that are replaced."""

_PASS_CLIPS_ON = (ValidatedImageLoader, RobustVideoLoader, SafeVideoFrameSampler)
_STOCK_PASSES_CLIPS_ON = ("ImageToVideo",)  # a clip has its frames already


@dataclass(frozen=True)
class Place:
    """Where a module stands in the nested lists of a definition."""

    within: list[Any]
    position: int

    @property
    def module(self) -> Any:
        return unwrap(self.within[self.position])


def fit_to_bucket(
    definition: list[Any], context: PipelineContext, guard: Callable[[PipelineModule], PipelineModule]
) -> tuple[str, ...]:
    """Replace stock's ``CalcAspect`` and ``ScaleCropImage`` behind a validated loader; returns what was replaced.

    The definition stays as it is where anything between them needs the clip at its own size, or changes it (masks that
    are cropped together with the picture), or where a module is not the one that is known here.
    """
    places = list(places_in(definition))
    loaders = [place for place in places if isinstance(place.module, RobustVideoLoader)]
    for loader in loaders:
        name = loader.module.video_out_name
        behind = places[places.index(loader) + 1 :]
        scaling = next((at for at, place in enumerate(behind) if _is_stock(place.module, SCALES)), None)
        if scaling is None or name not in behind[scaling].module.names:
            continue
        between = [place for place in behind[:scaling] if _touches(place.module, name)]
        measuring = [place for place in between if _is_stock(place.module, MEASURES)]
        if len(measuring) != 1 or not all(place in measuring or _passes_on(place.module) for place in between):
            continue
        if not all(_passes_on(place.module) for place in places[: places.index(loader)] if _makes(place.module, name)):
            continue
        try:
            replaced = _replacements(measuring[0].module, behind[scaling].module, loader.module, context)
        except AttributeError:  # another MGDS than the one that is known here
            continue
        for place, module in zip((measuring[0], behind[scaling]), replaced, strict=True):
            place.within[place.position] = guard(module)
        return MEASURES, SCALES
    return ()


def _replacements(
    aspect: Any, scaling: Any, loader: RobustVideoLoader, context: PipelineContext
) -> tuple[MeasuredAspect, SafeScaleCrop]:
    return (
        MeasuredAspect(aspect.image_in_name, aspect.resolution_out_name, loader=loader),
        SafeScaleCrop(
            names=scaling.names,
            scale_resolution_in_name=scaling.scale_resolution_in_name,
            crop_resolution_in_name=scaling.crop_resolution_in_name,
            enable_crop_jitter_in_name=scaling.enable_crop_jitter_in_name,
            crop_offset_out_name=scaling.crop_offset_out_name,
            loader=loader,
            context=context,
        ),
    )


def places_in(definition: list[Any]) -> Iterator[Place]:
    """Where each module of a (nested) definition stands, in the order of the pipeline."""
    for position, part in enumerate(definition):
        if isinstance(part, list):
            yield from places_in(part)
        elif part is not None:
            yield Place(definition, position)


def _is_stock(module: Any, name: str) -> bool:
    return type(module).__name__ == name and is_stock(module)


def _touches(module: Any, name: str) -> bool:
    return name in input_names(module) or _makes(module, name)


def _makes(module: Any, name: str) -> bool:
    return name in (module.get_outputs() or [])


def _passes_on(module: Any) -> bool:
    return isinstance(module, _PASS_CLIPS_ON) or any(_is_stock(module, name) for name in _STOCK_PASSES_CLIPS_ON)
