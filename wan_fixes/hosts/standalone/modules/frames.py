"""Frames: pictures as clips, and clips mirrored, all frames alike."""

from __future__ import annotations

from typing import Any

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
