"""Buckets: the size that each clip is scaled and cropped to, so that clips of like shape make a batch.

The sizes are in `hosts.standalone.bucket_sizes`.
"""

from __future__ import annotations

from typing import Any

from wan_fixes.hosts.standalone.bucket_sizes import Size, buckets_of, covering_size
from wan_fixes.hosts.standalone.modules.sample_module import SampleModule, SampleReader
from wan_fixes.pipeline.context import PipelineContext


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
        sizes = buckets_of(aspect, str(read(name)), self.quantization, squares_only=self.squares_only)
        return sizes[0] if len(sizes) == 1 else read.rng("resolution").choice(sizes)
