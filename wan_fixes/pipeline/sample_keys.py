"""The keys of a cache's samples: which entries hold what this pipeline makes of one.

What a sample is cached as is kept in parts, each an entry of its own, by what they are for: the latents of a clip and
the latents of its first frame, of one encoder but for other ends. A mode that needs one more part adds that one only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.fingerprint import Recipe, SettingsKeys, is_pure, read_recipe, sample_key
from wan_fixes.pipeline.upstream import all_producers, collector, from_collector, path_listed, producers, unwrap
from wan_fixes.store import make_key


@dataclass(slots=True)
class _Part:
    """How the names are made that share an entry."""

    recipe: Recipe
    settings: SettingsKeys
    shared: str = ""


class SampleKeys:
    """Reads what the samples' keys are made of, for the cache at index `at` of a pipeline's `modules`.

    Made before any module has started (see `read_recipe`).

    Attributes
    ----------
    parts:
        The cached names, those together that share an entry.
    read_concept:
        Reads the concept of a sample from the collector; None where another module makes it, or none does.
    concept_of:
        Reads the concept of a sample, whoever makes it; None where the definition has none.
    """

    def __init__(self, modules: list[Any], at: int, cached_names: list[str], context: PipelineContext) -> None:
        self._modules = modules
        self._at = at
        self._context = context
        self.parts = split_by_purpose(modules, at, cached_names)
        recipes = [read_recipe(modules, at, names) for names in self.parts]
        self._parts = [_Part(recipe, SettingsKeys(recipe.setting_names)) for recipe in recipes]
        self._collector = collector(modules, at)
        places = {place for recipe in recipes for place in (*recipe.files, *recipe.values)} | {(at, "concept")}
        self._collected = {place: from_collector(modules, *place) for place in places}
        self.read_concept = self._collected[at, "concept"]
        self.concept_of = self.read_concept or self._concept_of

    def shared(self, part: int) -> str:
        """What all keys of a part have in common; the first time the encoders' weights are hashed."""
        its = self._parts[part]
        its.shared = its.shared or make_key(its.recipe.key_parts(self.parts[part]))
        return its.shared

    def of(self, index: int, variation: int, part: int) -> str:
        """The key of a part of a sample. Raises what reading that which it hangs on raises."""
        own_file = self.path_of(index)

        def read(position: int, name: str) -> Any:
            return self._read(position, name, index, variation)

        return sample_key(
            self.shared(part),
            self._parts[part].recipe,
            read=read,
            content=lambda path: self._content(path, is_own=path == own_file),
            settings=self._parts[part].settings.of(lambda name: read(self._at, name)),
            variation=variation,
        )

    def path_of(self, index: int) -> str | None:
        """The file of a sample, or None where there is none."""
        return path_listed(self._collector, index)

    def _concept_of(self, index: int) -> Any:
        if next(producers(self._modules, self._at, "concept"), None) is None:
            return None
        return self._read(self._at, "concept", index, 0)

    def _read(self, position: int, name: str, index: int, variation: int) -> Any:
        """An item of a sample as the module at `position` sees it."""
        collected = self._collected.get((position, name))
        if collected is not None:
            return collected(index)
        return unwrap(self._modules[position])._get_previous_item(variation, name, index)

    def _content(self, path: str | None, *, is_own: bool) -> str:
        """A mask that is not there counts as empty; the sample's own file must be there, and not in quarantine."""
        if is_own:
            return self._context.check_quarantine(str(path))
        if not path or not Path(path).is_file():
            return ""
        return self._context.content_id(str(path))


def split_by_purpose(modules: list[Any], at: int, names: list[str]) -> list[list[str]]:
    """The names that a cache keeps, those together that are for one purpose; the first part comes first.

    What the same modules encode is. What no encoder makes (sizes, places of crops, tokens) goes with the first part.
    Where a module is on the way of which nobody knows whether it makes the same of the same twice, all stay together:
    parts that were made at different times would not fit each other.
    """
    makers = {name: all_producers(modules, at, [name]) for name in names}
    if not all(is_pure(modules[index]) for indices in makers.values() for index in indices):
        return [names]
    parts: dict[tuple[int, ...], list[str]] = {}
    plain = []
    for name, indices in makers.items():
        if read_recipe(modules, at, [name]).encoders:
            parts.setdefault(tuple(indices), []).append(name)
        else:
            plain.append(name)
    first, *others = parts.values() or [[]]
    return [[name for name in names if name in {*first, *plain}], *others]
