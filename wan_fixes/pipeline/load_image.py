"""Images to tensors, with every way that an image file can be wrong told apart."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy
import torch

from wan_fixes.errors import SampleError
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.pixels import memory_for, to_range
from wan_fixes.pipeline.upstream import sample_path_name


class ValidatedImageLoader(PipelineModule, RandomAccessPipelineModule):
    """In place of MGDS's LoadImage, with its arguments.

    Yields ``[channels, H, W]`` in `range_min` to `range_max`, None for a file that is no image by its extension, and
    None for a mask or conditioning image that does not exist: the pipeline then uses what it generated. The
    sample's own file must be there.
    """

    def __init__(
        self,
        path_in_name: str,
        image_out_name: str,
        range_min: float,
        range_max: float,
        supported_extensions: Collection[str],
        channels: int = 3,
        dtype: torch.dtype | None = None,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {channels}")
        self.path_in_name = path_in_name
        self.image_out_name = image_out_name
        self.range_min = range_min
        self.range_max = range_max
        self.supported_extensions = {extension.lower() for extension in supported_extensions}
        self.channels = channels
        self.dtype = dtype
        self.context = context

    def init(self, pipeline: Any, base_seed: int, module_index: int, state: Any) -> None:
        super().init(pipeline, base_seed, module_index, state)
        self._is_the_sample = self.path_in_name == sample_path_name(pipeline.modules, module_index)

    def length(self) -> int:
        return int(self._get_previous_length(self.path_in_name))

    def get_inputs(self) -> list[str]:
        return [self.path_in_name]

    def get_outputs(self) -> list[str]:
        return [self.image_out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        path = self._get_previous_item(variation, self.path_in_name, index)
        if Path(path).suffix.lower() not in self.supported_extensions:
            return {self.image_out_name: None}
        if not self._is_the_sample and not os.path.lexists(path):
            return {self.image_out_name: None}
        try:
            with memory_for(path):
                tensor = self.context.reader.load_image(path, self._to_tensor, channels=self.channels)
        except SampleError as error:
            error.module = type(self).__name__
            error.context.setdefault("damaged", True)
            raise
        return {self.image_out_name: tensor.to(self.pipeline.device)}

    def _to_tensor(self, pixels: numpy.ndarray[Any, Any]) -> torch.Tensor:
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)  # the pixels are not ours to keep
        return to_range(image, self.range_min, self.range_max, self.dtype)
