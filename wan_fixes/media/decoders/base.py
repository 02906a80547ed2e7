"""What a decoder of the chain offers. Each is a module with these names."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wan_fixes.media.collector import Fit
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan


class Decoder(Protocol):
    """Measures clips and delivers their frames."""

    @property
    def NAME(self) -> str:
        """As in `VideoMetadata.decoder`."""

    def is_available(self) -> bool:
        """Whether it is installed and works here. The first call imports it, which may take seconds."""

    def probe(self, path: str | os.PathLike[str], *, max_pixels: int, deadline: float) -> VideoMetadata:
        """As `wan_fixes.media.probe`, with `decoder` set. Raises SampleError."""

    def decode(
        self, path: str | os.PathLike[str], plan: FramePlan, *, fit: Fit | None, deadline: float, max_pixels: int
    ) -> npt.NDArray[np.uint8]:
        """As `wan_fixes.media.decode_clip`: uint8 `[3, F, H, W]`. Raises SampleError."""
