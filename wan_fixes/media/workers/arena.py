"""Arrays side by side in a shared buffer: made there, or copied into it, and found again in the other process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wan_fixes.errors import SampleError
from wan_fixes.media.collector import Allocate, Fit, Pixels, new_array
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.workers.shared_buffer import SharedBuffer


class Arena:
    """The arrays of one answer."""

    def __init__(self, buffer: SharedBuffer) -> None:
        self._buffer = buffer
        self._name = ""
        self._size = 0
        self._used = 0
        # Arrays that were made here and where, by id; held, so that no other array gets the id of one.
        self._made: dict[int, tuple[Pixels, int]] = {}

    def allocator(self, samples: Sequence[tuple[FramePlan, Fit | None]]) -> Allocate:
        """Makes the arrays of `samples` in the buffer, where their sizes are known or there is one alone."""
        sizes = [3 * len(plan.indices) * fit.crop[2] * fit.crop[3] for plan, fit in samples if fit is not None]
        if len(sizes) == len(samples):
            self._reserve(sum(sizes))
        elif len(samples) > 1:
            return new_array
        return self._allocate

    def parts(self, results: Sequence[Pixels | SampleError]) -> dict[str, Any]:
        """What `opened` needs in the other process."""
        if any(isinstance(result, np.ndarray) and id(result) not in self._made for result in results):
            results = self._copied(results)
        parts = [
            {"shape": result.shape, "offset": self._made[id(result)][1]} if isinstance(result, np.ndarray) else result
            for result in results
        ]
        return {"buffer": self._name, "size": self._size, "parts": parts}

    def _copied(self, results: Sequence[Pixels | SampleError]) -> list[Pixels | SampleError]:
        whole = [result.copy() if isinstance(result, np.ndarray) else result for result in results]
        self._reserve(sum(result.nbytes for result in whole if isinstance(result, np.ndarray)))
        placed: list[Pixels | SampleError] = []
        for result in whole:
            if isinstance(result, np.ndarray):
                place = self._place(result.shape)
                place[:] = result
                placed.append(place)
            else:
                placed.append(result)
        return placed

    def _reserve(self, size: int) -> None:
        self._name, self._size, self._used = self._buffer.reserve(size), size, 0

    def _allocate(self, shape: tuple[int, ...]) -> Pixels:
        if self._used + math.prod(shape) > self._size:
            if self._used:  # a second attempt at a clip whose size is another now
                return new_array(shape)
            self._reserve(math.prod(shape))
        return self._place(shape)

    def _place(self, shape: tuple[int, ...]) -> Pixels:
        array = self._buffer.array(shape, self._used)
        self._made[id(array)] = array, self._used
        self._used += array.nbytes
        return array


def opened(answer: dict[str, Any], buffer: SharedBuffer) -> list[Pixels | SampleError]:
    """The arrays, and errors between them, of `Arena.parts`."""
    if answer["size"]:
        buffer.open(answer["buffer"], answer["size"])
    return [
        part if isinstance(part, SampleError) else buffer.array(part["shape"], part["offset"])
        for part in answer["parts"]
    ]
