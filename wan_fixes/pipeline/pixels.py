"""8 bit pixels to the range and type that a pipeline asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from wan_fixes.errors import SampleError
from wan_fixes.health.diagnosis import failure_kind
from wan_fixes.pipeline.pixel_memory import empty

SHORT_OF_MEMORY: Final = "short_of_memory"
"""In the context of an error: this process had too little memory, which may do when fewer samples are made at once."""


def to_range(pixels: torch.Tensor, low: float, high: float, dtype: torch.dtype | None) -> torch.Tensor:
    """uint8 of any shape to `low` (for 0) to `high` (for 255), contiguous, as `dtype` (float 32 when None).

    As MGDS does it: the type first, then the scaling, so that values agree to the bit.
    """
    values = empty(tuple(pixels.shape), dtype or torch.float32).copy_(pixels).div_(255)
    # Each pass over a clip takes time, and these two would leave all values as they are.
    if high - low != 1:
        values.mul_(high - low)
    return values.add_(low) if low else values


@contextmanager
def memory_for(path: str | None) -> Iterator[None]:
    """Raise ``SampleError`` where this process has not the memory for the sample of `path`: others may take less."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if failure_kind(error) != "memory":
            raise
        raise too_little_memory(path) from error


def too_little_memory(path: str | None) -> SampleError:
    """The error for a sample that this process has not the memory for."""
    return SampleError(
        "a sample cannot be loaded",
        path=path,
        reason="there is not enough memory for its pixels",
        fix="close other programs, use fewer loader threads, lower frames or resolution, or scale the file down",
        module="media",
        context={"damaged": False, SHORT_OF_MEMORY: True},
    )
