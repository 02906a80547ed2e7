"""Frames: scaled, cropped and mirrored, all frames of a clip alike."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate

from wan_fixes.hosts.standalone.modules.sample_module import SampleModule, SampleReader
from wan_fixes.pipeline.context import PipelineContext


class ImageToVideo(SampleModule):
    """A picture ``[C, H, W]`` as a clip of one frame ``[C, 1, H, W]``; a clip stays."""

    def __init__(self, in_name: str, out_name: str) -> None:
        super().__init__()
        self.in_name = in_name
        self.out_name = out_name

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        image = read(self.in_name)
        return {self.out_name: image.unsqueeze(1) if image.ndim == 3 else image}


class ScaleCropImage(SampleModule):
    """Scales a clip ``[C, F, H, W]`` (floating point) to one size and crops another out of it.

    The crop lies in the middle, or, where the concept asks for jitter, at a place drawn for each variation.
    """

    def __init__(
        self,
        image_in_name: str,
        image_out_name: str,
        scale_resolution_in_name: str,
        crop_resolution_in_name: str,
        enable_crop_jitter_in_name: str,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__(context)
        self.image_in_name = image_in_name
        self.image_out_name = image_out_name
        self.scale_resolution_in_name = scale_resolution_in_name
        self.crop_resolution_in_name = crop_resolution_in_name
        self.enable_crop_jitter_in_name = enable_crop_jitter_in_name

    def get_inputs(self) -> list[str]:
        return [
            self.image_in_name,
            self.scale_resolution_in_name,
            self.crop_resolution_in_name,
            self.enable_crop_jitter_in_name,
        ]

    def get_outputs(self) -> list[str]:
        return [self.image_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        image = read(self.image_in_name)
        scaled = tuple(read(self.scale_resolution_in_name)[-2:])
        height, width = read(self.crop_resolution_in_name)[-2:]
        spare_y, spare_x = scaled[0] - height, scaled[1] - width
        if read(self.enable_crop_jitter_in_name):
            rng = read.rng("crop")
            y, x = rng.randint(0, spare_y), rng.randint(0, spare_x)
        else:
            y, x = spare_y // 2, spare_x // 2
        return {self.image_out_name: scale(image, scaled)[..., y : y + height, x : x + width].contiguous()}


class RandomFlip(SampleModule):
    """Mirrors a clip left to right: every second one by chance, or every one, as its concept asks."""

    def __init__(
        self,
        image_in_name: str,
        image_out_name: str,
        enabled_in_name: str,
        fixed_enabled_in_name: str,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__(context)
        self.image_in_name = image_in_name
        self.image_out_name = image_out_name
        self.enabled_in_name = enabled_in_name
        self.fixed_enabled_in_name = fixed_enabled_in_name

    def get_inputs(self) -> list[str]:
        return [self.image_in_name, self.enabled_in_name, self.fixed_enabled_in_name]

    def get_outputs(self) -> list[str]:
        return [self.image_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        image = read(self.image_in_name)
        if read(self.enabled_in_name):
            mirrored = read.rng("flip").random() < 0.5
        else:
            mirrored = bool(read(self.fixed_enabled_in_name))
        return {self.image_out_name: image.flip(-1) if mirrored else image}


def scale(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``[C, F, H, W]`` to `size` (height, width): bilinear, and smoothed when it shrinks, as torchvision does it."""
    if tuple(image.shape[-2:]) == size:
        return image
    return interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
