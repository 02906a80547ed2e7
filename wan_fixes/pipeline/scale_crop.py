"""Measuring, scaling and cropping a sample, so that a clip is decoded at the size that its bucket asks for.

Stock modules load a whole clip at its own size to measure it, and shrink it afterwards. Here the size is known from
the probe, and the decoder's converter scales each frame: memory grows with the target, not with the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import interpolate

from wan_fixes.media import Fit
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.load_video import RobustVideoLoader


class MeasuredAspect(PipelineModule, RandomAccessPipelineModule):
    """The size of a sample without its channels: of a clip ``(F, H, W)`` as planned and probed, else of the tensor.

    Parameters
    ----------
    image_in_name, resolution_out_name:
        As in MGDS's ``CalcAspect``.
    loader:
        What loads the clips.
    """

    def __init__(self, image_in_name: str, resolution_out_name: str, *, loader: RobustVideoLoader) -> None:
        super().__init__()
        self.image_in_name = image_in_name
        self.resolution_out_name = resolution_out_name
        self._loader = loader

    def length(self) -> int:
        return int(self._get_previous_length(self.image_in_name))

    def get_inputs(self) -> list[str]:
        return [self.image_in_name]

    def get_outputs(self) -> list[str]:
        return [self.resolution_out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        resolution = self._loader.resolution(variation, index)
        if resolution is None:
            resolution = tuple(self._get_previous_item(variation, self.image_in_name, index).shape[1:])
        return {self.resolution_out_name: resolution}


class SafeScaleCrop(PipelineModule, RandomAccessPipelineModule):
    """Scales to one size and crops another out of it: a clip while it is decoded, anything else as a tensor.

    The crop lies in the middle, or, where the concept asks for jitter, at a place drawn for each variation from the
    sample's content. Tensors ``[…, H, W]`` are scaled bilinearly, smoothed when they shrink, as torchvision does it.

    Parameters
    ----------
    names, scale_resolution_in_name, crop_resolution_in_name, enable_crop_jitter_in_name, crop_offset_out_name:
        As in MGDS's ``ScaleCropImage``. An item may be None, and stays so.
    loader:
        What loads the clips; its item is one of `names`.
    """

    def __init__(
        self,
        names: Sequence[str],
        scale_resolution_in_name: str,
        crop_resolution_in_name: str,
        enable_crop_jitter_in_name: str,
        crop_offset_out_name: str | None,
        *,
        loader: RobustVideoLoader,
        context: PipelineContext,
    ) -> None:
        super().__init__()
        self.names = list(names)
        self.scale_resolution_in_name = scale_resolution_in_name
        self.crop_resolution_in_name = crop_resolution_in_name
        self.enable_crop_jitter_in_name = enable_crop_jitter_in_name
        self.crop_offset_out_name = crop_offset_out_name
        self._loader = loader
        self._context = context
        loader.decode_together(self._fit)

    def length(self) -> int:
        return int(self._get_previous_length(self.names[0]))

    def get_inputs(self) -> list[str]:
        return [
            *self.names,
            self.scale_resolution_in_name,
            self.crop_resolution_in_name,
            self.enable_crop_jitter_in_name,
        ]

    def get_outputs(self) -> list[str]:
        return [*self.names, *([self.crop_offset_out_name] if self.crop_offset_out_name else [])]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        fit = self._fit(variation, index)
        item: dict[str, Any] = {}
        for name in self.names:
            clip = self._loader.load_fitted(variation, index, fit) if name == self._loader.video_out_name else None
            if clip is None:
                clip = _fitted(self._get_previous_item(variation, name, index), fit)
            item[name] = clip
        if self.crop_offset_out_name:
            item[self.crop_offset_out_name] = fit.crop[:2]
        return item

    def _fit(self, variation: int, index: int) -> Fit:
        size = tuple(self._get_previous_item(variation, self.scale_resolution_in_name, index)[-2:])
        height, width = self._get_previous_item(variation, self.crop_resolution_in_name, index)[-2:]
        spare_y, spare_x = size[0] - height, size[1] - width
        if self._get_previous_item(variation, self.enable_crop_jitter_in_name, index):
            rng = self._context.rng(variation, self._loader.path_of(variation, index), "crop")
            top, left = rng.randint(0, spare_y), rng.randint(0, spare_x)
        else:
            top, left = spare_y // 2, spare_x // 2
        return Fit(size, (top, left, height, width))


def _fitted(image: torch.Tensor | None, fit: Fit) -> torch.Tensor | None:
    if image is None:
        return None
    top, left, height, width = fit.crop
    return scale(image, fit.size)[..., top : top + height, left : left + width].contiguous()


def scale(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``[…, H, W]`` (floating point) to `size` (height, width), in fp32: on the CPU torch does it in no less."""
    if tuple(image.shape[-2:]) == size:
        return image
    frames = image.reshape(-1, 1, *image.shape[-2:]).float()
    scaled = interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True)
    return scaled.reshape(*image.shape[:-2], *size).to(image.dtype)
