"""How long, how fast and of what shape the clips of a preset are: what a histogram of them shows."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wan_fixes.hosts.standalone.preset import Preset

if TYPE_CHECKING:
    from wan_fixes.hosts.standalone.check import FileVerdict

_LENGTHS = (1, 2, 5, 9, 17, 33, 49, 81, 161)
"""Where the ranges of lengths begin, in frames at the model's rate: 4n + 1, as WAN takes them."""

Bars = list[tuple[str, int]]
"""What is counted, and how many of it there are; in the order in which to show it."""


@dataclass(frozen=True, slots=True)
class ClipSpread:
    """Counts over the files of a preset that could be measured.

    Attributes
    ----------
    lengths:
        Of clips, by how many frames they have at the model's rate; those that are too short among them.
    rates:
        Of clips, by frames per second.
    buckets:
        Of the samples that can be trained on, by the size ``WIDTHxHEIGHT`` that they are trained at: one for each
        resolution of the preset.
    """

    lengths: Bars
    rates: Bars
    buckets: Bars


def clip_spread(preset: Preset, verdicts: Iterable[FileVerdict]) -> ClipSpread:
    """Count what `verdicts` measured."""
    lengths: Counter[int] = Counter()
    rates: Counter[float] = Counter()
    buckets: Counter[tuple[int, int]] = Counter()
    for verdict in verdicts:
        if verdict.fps is not None and verdict.duration is not None:
            frames = max(1, int(verdict.duration * preset.variant.fps + 1e-6))
            lengths[bisect_right(_LENGTHS, frames) - 1] += 1
            rates[round(verdict.fps, 2)] += 1
        for size in verdict.trained_at:
            buckets[size] += verdict.samples
    return ClipSpread(
        lengths=[(_range(place), lengths[place]) for place in sorted(lengths)],
        rates=[(f"{rate:g}", rates[rate]) for rate in sorted(rates)],
        buckets=[(f"{width}x{height}", count) for (width, height), count in sorted(buckets.items(), key=_largest)],
    )


def _range(place: int) -> str:
    first = _LENGTHS[place]
    if place + 1 == len(_LENGTHS):
        return f"{first} or more"
    last = _LENGTHS[place + 1] - 1
    return str(first) if first == last else f"{first} to {last}"


def _largest(entry: tuple[tuple[int, int], int]) -> tuple[int, tuple[int, int]]:
    """The bucket with most samples first."""
    (width, height), count = entry
    return -count, (height, width)
