"""From output index to sample: groups, variations and balancing, as MGDS defines them, without the dropped samples.

The caches and the variation sorting share this, so that they cannot disagree.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import xxhash

from wan_fixes.errors import UserError
from wan_fixes.pipeline.roster import SampleRoster

ReadItem = Callable[[str, int], Any]
"""Reads an upstream item: (name, input index) -> value."""


@dataclass(slots=True)
class SampleGroup:
    """The samples of one concept with one set of settings.

    Attributes
    ----------
    variations:
        How many different versions of a sample there are, from the first sample of the group.
    balancing, strategy:
        ``REPEATS``: an epoch has ``floor(count * balancing)`` of the group; ``SAMPLES``: ``balancing`` of them.
    indices:
        Input indices, in order.
    """

    variations: int
    balancing: float
    strategy: str
    indices: list[int]

    def output_count(self) -> int:
        """How many samples of the group one epoch has."""
        if not self.indices:
            return 0
        if self.strategy == "SAMPLES":
            return int(self.balancing)
        return math.floor(len(self.indices) * self.balancing)


class Location(NamedTuple):
    """Where an output index leads: which sample, in which pass over its group."""

    group: int
    turn: int
    position: int
    sample: int


def read_groups(
    read: ReadItem,
    length: int,
    *,
    read_concept: Callable[[int], Any] | None = None,
    variations_name: str | None,
    balancing_name: str | None,
    strategy_name: str | None,
    group_names: Sequence[str],
    enabled_name: str | None,
) -> list[SampleGroup]:
    """Sort the samples into groups, in the order in which the groups first appear.

    Without a balancing name all samples are one group that is used once an epoch. `read_concept(index)` gives the
    concept of a sample, one object for all samples of one. Raises ``UserError`` for a balancing strategy that nobody
    knows.
    """
    if balancing_name is None:
        return [SampleGroup(1, 1.0, "REPEATS", list(range(length)))]
    groups: dict[str, SampleGroup] = {}
    by_concept: dict[int, tuple[Any, SampleGroup | None]] = {}
    asked = [*group_names, *filter(None, (variations_name, balancing_name, strategy_name, enabled_name))]
    if not all(name.split(".")[0] == "concept" for name in asked):
        read_concept = None
    for index in range(length):
        # All samples of a concept have the same one: with 100,000 of them, asking for each item takes half a minute.
        concept = None if read_concept is None else read_concept(index)
        known = by_concept.get(id(concept))
        if known is not None and concept is not None:
            group = known[1]
            if group is not None:
                group.indices.append(index)
            continue
        if enabled_name and not read(enabled_name, index):
            by_concept[id(concept)] = (concept, None)
            continue
        key = _group_key([read(name, index) for name in group_names])
        group = groups.get(key)
        if group is None:
            strategy = str(read(strategy_name, index)) if strategy_name else "REPEATS"
            if strategy not in ("REPEATS", "SAMPLES"):
                raise UserError(
                    "unknown balancing strategy",
                    reason=repr(strategy),
                    fix="choose REPEATS or SAMPLES in the concept",
                )
            variations = int(read(variations_name, index)) if variations_name else 1
            group = SampleGroup(max(1, variations), float(read(balancing_name, index)), strategy, [])
            groups[key] = group
        by_concept[id(concept)] = (concept, group)
        group.indices.append(index)
    return list(groups.values())


def _group_key(values: list[Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return xxhash.xxh3_128_hexdigest(text.encode())


class GroupPlan:
    """The groups of one epoch with the dropped samples left out."""

    def __init__(self, groups: Sequence[SampleGroup], roster: SampleRoster) -> None:
        self.version = roster.version
        dropped = roster.dropped()
        self.groups = [
            replace(group, indices=[index for index in group.indices if index not in dropped]) if dropped else group
            for group in groups
        ]
        self._ends = list(itertools.accumulate(group.output_count() for group in self.groups))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, epoch: int, output_index: int) -> Location:
        """The sample at `output_index` of `epoch`. Raises ``IndexError`` beyond the end."""
        if not 0 <= output_index < len(self):
            raise IndexError(f"{output_index} of {len(self)} samples")
        number = bisect.bisect_right(self._ends, output_index)
        group = self.groups[number]
        count = group.output_count()
        local = output_index - (self._ends[number] - count) + epoch * count
        turn, position = divmod(local, len(group.indices))
        return Location(number, turn, position, group.indices[position])

    def order(self, epoch: int) -> Iterator[tuple[int, int]]:
        """The (input index, variation) pair at each output index of `epoch`, as `locate` finds them one by one."""
        for group in self.groups:
            count, size = group.output_count(), len(group.indices)
            for local in range(epoch * count, (epoch + 1) * count):
                turn, position = divmod(local, size)
                yield group.indices[position], turn % group.variations

    def needed(self, epoch: int) -> Iterator[tuple[int, int]]:
        """The (input index, variation) pairs that the passes of `epoch` touch, whole passes at a time."""
        for group in self.groups:
            count = group.output_count()
            if not count:
                continue
            size = len(group.indices)
            first, last = (count * epoch) // size, (count * (epoch + 1) - 1) // size
            variations = dict.fromkeys(turn % group.variations for turn in range(first, last + 1))
            for variation in variations:
                for index in group.indices:
                    yield index, variation
