"""Tells a store which entries a training needs and for which concept, so that its commands can tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
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

    def note(self, keys: Sequence[str], samples: Sequence[int], all_samples: Iterable[int]) -> None:
        """Note keys, each with a sample of it. `all_samples` are there: the concepts that the cache is over."""
        is_first = not self._owner
        if is_first:
            _, concepts = self._concepts_of(all_samples)
            paths = sorted({str(_field(concept, "path")) for concept in concepts.values()})
            self._owner = make_key({"names": self._cached_names, "concepts": paths})
        if self._noted:
            is_new = [key not in self._noted for key in keys]
            keys, samples = list(compress(keys, is_new)), list(compress(samples, is_new))
        if keys or is_first:
            self._store.note_needed(self._owner, dict(zip(keys, self._names(samples), strict=True)), replace=is_first)
            self._noted.update(keys)

    def _names(self, samples: Sequence[int]) -> list[str]:
        identities, concepts = self._concepts_of(samples)
        names = {identity: _name(concept) for identity, concept in concepts.items()}
        return [names[identity] for identity in identities]

    def _concepts_of(self, samples: Iterable[int]) -> tuple[list[int], dict[int, Any]]:
        """Which concept each sample is of, and the concepts: all samples of one have the same object."""
        concepts = list(map(self._read_concept, samples))
        identities = list(map(id, concepts))
        return identities, dict(zip(identities, concepts, strict=True))


def _name(concept: Any) -> str:
    return str(_field(concept, "name") or Path(str(_field(concept, "path"))).name)


def _field(concept: Any, name: str) -> Any:
    return concept.get(name) or "" if isinstance(concept, Mapping) else ""
