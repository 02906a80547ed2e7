"""Buckets: the size that each clip is scaled and cropped to, so that clips of like shape make a batch.

The sizes are those of MGDS's AspectBucketing: nine aspect ratios and their inverses, each of the target's area, rounded
to what the model takes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from wan_fixes.hosts.standalone.modules.sample_module import SampleModule, SampleReader
from wan_fixes.pipeline.context import PipelineContext

ASPECTS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Longer side by shorter side, of every bucket."""

Size = tuple[int, int]
"""Height and width in pixels."""


class AspectBucketing(SampleModule):
    """The bucket of each clip: the size to scale to, and the size to crop out of that.

    Parameters
    ----------
    quantization:
        Height and width become multiples of this.
    resolution_in_name:
        ``(H, W)`` or ``(F, H, W)``; the frames come through unchanged.
    target_resolution_in_name:
        ``512`` (an area of 512 x 512), ``512, 768`` (one drawn for each sample), or ``832x480`` (exactly that).
    enable_target_resolutions_override_in_name, target_resolutions_override_in_name:
        A concept's own target, and whether it counts.
    squares_only:
        One square bucket for each target: aspect ratio bucketing switched off.
    """

    def __init__(
        self,
        quantization: int,
        resolution_in_name: str,
        target_resolution_in_name: str,
        enable_target_resolutions_override_in_name: str,
        target_resolutions_override_in_name: str,
        scale_resolution_out_name: str,
        crop_resolution_out_name: str,
        squares_only: bool = False,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__(context)
        self.quantization = quantization
        self.resolution_in_name = resolution_in_name
        self.target_resolution_in_name = target_resolution_in_name
        self.enable_target_resolutions_override_in_name = enable_target_resolutions_override_in_name
        self.target_resolutions_override_in_name = target_resolutions_override_in_name
        self.scale_resolution_out_name = scale_resolution_out_name
        self.crop_resolution_out_name = crop_resolution_out_name
        self.squares_only = squares_only

    def get_inputs(self) -> list[str]:
        return [
            self.resolution_in_name,
            self.target_resolution_in_name,
            self.enable_target_resolutions_override_in_name,
            self.target_resolutions_override_in_name,
        ]

    def get_outputs(self) -> list[str]:
        return [self.scale_resolution_out_name, self.crop_resolution_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        *frames, height, width = read(self.resolution_in_name)
        crop = self._target(read, height / width)
        return {
            self.scale_resolution_out_name: (*frames, *covering_size((height, width), crop)),
            self.crop_resolution_out_name: (*frames, *crop),
        }

    def _target(self, read: SampleReader, aspect: float) -> Size:
        name = self.target_resolution_in_name
        if read(self.enable_target_resolutions_override_in_name):
            name = self.target_resolutions_override_in_name
        text = str(read(name))
        if "x" in text:
            width, height = (int(part) for part in text.split("x"))
            return _quantize(height, self.quantization), _quantize(width, self.quantization)
        choices = [int(part) for part in text.split(",")]
        side = choices[0] if len(choices) == 1 else read.rng("resolution").choice(choices)
        if self.squares_only:
            return _quantize(side, self.quantization), _quantize(side, self.quantization)
        return nearest_bucket(aspect, bucket_sizes(side, self.quantization))


@functools.lru_cache(maxsize=64)
def bucket_sizes(side: int, quantization: int) -> tuple[Size, ...]:
    """Every bucket for the area `side` x `side`, sorted."""
    sizes = set()
    for aspect in ASPECTS:
        shorter, longer = side / math.sqrt(aspect), side / math.sqrt(aspect) * aspect
        one, other = _quantize(shorter, quantization), _quantize(longer, quantization)
        sizes |= {(one, other), (other, one)}
    return tuple(sorted(sizes))


def nearest_bucket(aspect: float, sizes: tuple[Size, ...]) -> Size:
    """The bucket whose height by width comes closest to `aspect`."""
    return min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))


def covering_size(size: Size, target: Size) -> Size:
    """`size` scaled, its shape kept, until it just covers `target`."""
    (height, width), (target_height, target_width) = size, target
    if height / width > target_height / target_width:
        return max(target_height, round(height * target_width / width)), target_width
    return target_height, max(target_width, round(width * target_height / height))


def _quantize(length: float, quantization: int) -> int:
    # at least one: a narrow bucket of a small target would otherwise have no pixels
    return max(1, round(length / quantization)) * quantization
