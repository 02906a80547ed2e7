"""Memory for clips that is used again: getting fresh pages takes three times as long as writing to them."""

from __future__ import annotations

import math
import threading
import weakref
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

_LEAST_BYTES: Final = 8 << 20
"""Smaller tensors are made as usual."""
_MOST_BYTES: Final = 512 << 20
"""So much is kept at most while nobody uses it."""

_Block = npt.NDArray[np.uint8]
_unused: list[_Block] = []
_lock = threading.RLock()  # a tensor may be collected while this very thread holds it


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An unfilled tensor on the CPU, in memory that goes to a later one when nothing refers to it any more."""
    size = math.prod(shape) * dtype.itemsize
    if size < _LEAST_BYTES:
        return torch.empty(shape, dtype=dtype)
    block = _take(size)
    if block is None:
        try:
            block = np.empty(size, dtype=np.uint8)
        except MemoryError:
            release()
            block = np.empty(size, dtype=np.uint8)
    handle = block[:]  # the tensor holds this view of it, and with the tensor it goes
    weakref.finalize(handle, _give_back, block).atexit = False
    return torch.from_numpy(handle).view(dtype).view(shape)


def release() -> None:
    """Give back to the system what nobody uses."""
    with _lock:
        _unused.clear()


def _take(size: int) -> _Block | None:
    with _lock:
        for place, block in enumerate(_unused):
            if block.nbytes == size:
                return _unused.pop(place)
    return None


def _give_back(block: _Block) -> None:
    with _lock:
        if sum(other.nbytes for other in _unused) + block.nbytes <= _MOST_BYTES:
            _unused.append(block)
