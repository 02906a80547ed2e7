"""Several samples of one clip, decoded in one pass over it: the first that is asked for brings the others along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from wan_fixes.errors import SampleError
from wan_fixes.media import Fit, FramePlan, MediaReader
from wan_fixes.media.collector import Pixels, sound

Pair: TypeAlias = tuple[int, int]
"""Index and variation of a sample."""

BUDGET_BYTES: Final = 512 << 20
"""Of frames that are decoded together and kept until they are asked for: as many samples as that holds, or one."""


@dataclass(slots=True)
class Upcoming:
    """The samples of one file that are about to be asked for, in this order, and what was decoded for them already."""

    pairs: list[Pair]
    held: dict[tuple[OnePass, Pair], tuple[Fit, Pixels | SampleError]] = field(default_factory=dict)


class OnePass:
    """Decodes what is about to be asked for along with what is: it is held for as long as it is upcoming.

    Parameters
    ----------
    upcoming:
        Of a file; None when it was not announced, or is over.
    request:
        What is to be decoded for a sample. Raises ``SampleError``.
    """

    def __init__(
        self,
        reader: MediaReader,
        upcoming: Callable[[str], Upcoming | None],
        request: Callable[[Pair], tuple[FramePlan, Fit]],
    ) -> None:
        self._reader = reader
        self._upcoming = upcoming
        self._request = request

    def frames(self, path: str, pair: Pair, plan: FramePlan, fit: Fit) -> Pixels | None:
        """uint8 ``[3, F, H, W]`` of a sample; None where it comes alone. Raises ``SampleError``."""
        upcoming = self._upcoming(path)
        if upcoming is None or pair not in upcoming.pairs:
            return None
        held = upcoming.held.pop((self, pair), None)
        if held is not None and held[0] == fit:
            return sound(held[1])
        others = upcoming.pairs[upcoming.pairs.index(pair) + 1 :]
        samples = {pair: (plan, fit)}
        room = BUDGET_BYTES - _bytes_of(plan, fit)
        for other in others:
            try:
                wanted = self._request(other)
            except SampleError:
                continue  # it will be asked for, and say so
            room -= _bytes_of(*wanted)
            if room < 0:
                break
            samples[other] = wanted
        if len(samples) == 1:
            return None
        own, *results = self._reader.decode_samples(path, list(samples.values()), _copied)
        del samples[pair]
        for (other, (_, other_fit)), result in zip(samples.items(), results, strict=True):
            upcoming.held[self, other] = other_fit, result
        return sound(own)


def _bytes_of(plan: FramePlan, fit: Fit) -> int:
    return 3 * len(plan.indices) * fit.crop[2] * fit.crop[3]


def _copied(results: list[Pixels | SampleError]) -> list[Pixels | SampleError]:
    return [result.copy() if isinstance(result, np.ndarray) else result for result in results]
