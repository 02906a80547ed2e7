"""From the VAE's distribution to the latent that is cached."""

from __future__ import annotations

from typing import Any

from wan_fixes.hosts.standalone.modules.sample_module import SampleModule, SampleReader


class SampleVAEDistribution(SampleModule):
    """The mean of a latent distribution ``[1, C, F, H, W]`` as ``[C, F, H, W]``, in the VAE's own scale."""

    def __init__(self, in_name: str, out_name: str) -> None:
        super().__init__()
        self.in_name = in_name
        self.out_name = out_name

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        return {self.out_name: read(self.in_name).mode()[0]}
