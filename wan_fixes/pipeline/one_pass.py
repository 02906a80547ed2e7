"""Several samples of one clip, decoded in one pass over it: the first that is asked for brings the others along."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from wan_fixes.errors import SampleError
from wan_fixes.media import Fit, FramePlan, MediaReader
from wan_fixes.media.collector import Pixels

Pair: TypeAlias = tuple[int, int]
"""Index and variation of a sample."""

BUDGET_BYTES: Final = 512 << 20
"""Of frames that are decoded together and kept until they are asked for: as many samples as that holds, or one."""


class OnePass:
    """The frames that were decoded before they were asked for.

    Parameters
    ----------
    upcoming:
        The samples of a file that are about to be asked for in this order; empty when none are, or no more.
    request:
        What is to be decoded for a sample. Raises ``SampleError``.
    """

    def __init__(
        self,
        reader: MediaReader,
        upcoming: Callable[[str], list[Pair]],
        request: Callable[[Pair], tuple[FramePlan, Fit]],
    ) -> None:
        self._reader = reader
        self._upcoming = upcoming
        self._request = request
        self._held: dict[str, dict[Pair, tuple[Fit, Pixels | SampleError]]] = {}
        self._lock = threading.Lock()

    def frames(self, path: str, pair: Pair, plan: FramePlan, fit: Fit) -> Pixels | None:
        """uint8 ``[3, F, H, W]`` of a sample; None where it comes alone. Raises ``SampleError``."""
        held = self._taken(path, pair)
        if held is not None and held[0] == fit:
            return _checked(held[1])
        pairs = self._together(path, pair)
        if not pairs:
            return None
        samples = {pair: (plan, fit)}
        room = BUDGET_BYTES - _bytes_of(plan, fit)
        for other in pairs:
            try:
                wanted = self._request(other)
            except SampleError:
                continue  # it will be asked for, and say so
            room -= _bytes_of(*wanted)
            if room < 0:
                break
            samples[other] = wanted
        results = self._reader.decode_samples(path, list(samples.values()), _copied)
        with self._lock:
            self._held[path] = {
                each: (wanted[1], result) for (each, wanted), result in zip(samples.items(), results, strict=True)
            }
            return _checked(self._held[path].pop(pair)[1])

    def _taken(self, path: str, pair: Pair) -> tuple[Fit, Pixels | SampleError] | None:
        with self._lock:
            for other in list(self._held):
                if not self._upcoming(other):
                    del self._held[other]
            return self._held.get(path, {}).pop(pair, None)

    def _together(self, path: str, pair: Pair) -> list[Pair]:
        """What follows in the order in which it will be asked for."""
        pairs = self._upcoming(path)
        return pairs[pairs.index(pair) + 1 :] if pair in pairs else []


def _bytes_of(plan: FramePlan, fit: Fit) -> int:
    return 3 * len(plan.indices) * fit.crop[2] * fit.crop[3]


def _copied(results: list[Pixels | SampleError]) -> list[Pixels | SampleError]:
    return [result.copy() if isinstance(result, np.ndarray) else result for result in results]


def _checked(result: Pixels | SampleError) -> Pixels:
    if isinstance(result, SampleError):
        raise result
    return result
