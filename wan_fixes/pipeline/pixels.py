"""8 bit pixels to the range and type that a pipeline asks for."""

from __future__ import annotations

import torch


def to_range(pixels: torch.Tensor, low: float, high: float, dtype: torch.dtype | None) -> torch.Tensor:
    """uint8 of any shape to `low` (for 0) to `high` (for 255), contiguous, as `dtype` (float 32 when None).

    As MGDS does it: the type first, then the scaling, so that values agree to the bit.
    """
    values = pixels.contiguous().to(dtype or torch.float32)
    return values.div_(255).mul_(high - low).add_(low)
