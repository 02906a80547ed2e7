"""Tells a store which entries a training needs and for which concept, so that its commands can tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from wan_fixes.store import SampleStore, make_key


class NeededEntries:
    """What one cache of one pipeline needs; each is noted once.

    The owner in the store is this kind of cache over these concepts: another training of them takes its place, so
    that what neither needs any more can be told.

    Parameters
    ----------
    read_concept:
        Gives the concept of a sample, or None where the pipeline has none.
    """

    def __init__(self, store: SampleStore, cached_names: list[str], read_concept: Callable[[int], Any]) -> None:
        self._store = store
        self._cached_names = cached_names
        self._read_concept = read_concept
        self._owner = ""
        self._noted: set[str] = set()
        self._names: dict[int, tuple[Any, str]] = {}

    def note(self, needed: Mapping[str, int], samples: Iterable[int]) -> None:
        """Note keys, each with a sample of it. `samples` are all there are: the concepts that the cache is over."""
        is_first = not self._owner
        if is_first:
            self._owner = make_key({"names": self._cached_names, "concepts": self._paths(samples)})
        fresh = {key: self._name(index) for key, index in needed.items() if key not in self._noted}
        if fresh or is_first:
            self._store.note_needed(self._owner, fresh, replace=is_first)
            self._noted |= fresh.keys()

    def _paths(self, samples: Iterable[int]) -> list[str]:
        concepts = {id(concept): concept for concept in map(self._read_concept, samples)}
        return sorted({str(_field(concept, "path")) for concept in concepts.values()})

    def _name(self, index: int) -> str:
        concept = self._read_concept(index)
        known = self._names.get(id(concept))  # all samples of a concept have the same object
        if known is None:
            name = str(_field(concept, "name") or Path(str(_field(concept, "path"))).name)
            known = self._names[id(concept)] = concept, name  # kept with it, so that its id stays its own
        return known[1]


def _field(concept: Any, name: str) -> Any:
    return concept.get(name) or "" if isinstance(concept, Mapping) else ""
