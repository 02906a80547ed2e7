"""The keys of a cache's samples: which entry holds what this pipeline makes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.fingerprint import SettingsKeys, read_recipe, sample_key
from wan_fixes.pipeline.upstream import collector, from_collector, path_listed, producers, unwrap
from wan_fixes.store import make_key


class SampleKeys:
    """Reads what the samples' keys are made of, for the cache at index `at` of a pipeline's `modules`.

    Made before any module has started (see `read_recipe`).
    """

    def __init__(self, modules: list[Any], at: int, cached_names: list[str], context: PipelineContext) -> None:
        self._modules = modules
        self._at = at
        self._cached_names = cached_names
        self._context = context
        self._recipe = read_recipe(modules, at, cached_names)
        self._settings = SettingsKeys(self._recipe.setting_names)
        self._collector = collector(modules, at)
        places = [*self._recipe.files, *self._recipe.values, (at, "concept")]
        self._collected = {place: from_collector(modules, *place) for place in places}
        #: Reads the concept of a sample from the collector; None where another module makes it, or none does.
        self.read_concept = self._collected[at, "concept"]
        self._shared = ""
        #: Whether a value (a prompt, not only files) decides a key: it may have been drawn by a sample's index.
        self.reads_values = any(self._collected[place] is None for place in self._recipe.values)

    def shared(self) -> str:
        """The part of the key that all samples have in common; the first time the encoders' weights are hashed."""
        self._shared = self._shared or make_key(self._recipe.key_parts(self._cached_names))
        return self._shared

    def of(self, index: int, variation: int) -> str:
        """The key of a sample. Raises what reading its parts raises."""
        own_file = self.path_of(index)

        def read(position: int, name: str) -> Any:
            return self._read(position, name, index, variation)

        return sample_key(
            self.shared(),
            self._recipe,
            read=read,
            content=lambda path: self._content(path, is_own=path == own_file),
            settings=self._settings.of(lambda name: read(self._at, name)),
            variation=variation,
        )

    def path_of(self, index: int) -> str | None:
        """The file of a sample, or None where there is none."""
        return path_listed(self._collector, index)

    def concept_of(self, index: int) -> Any:
        """The concept of a sample; None where the definition has none."""
        if self.read_concept is None and next(producers(self._modules, self._at, "concept"), None) is None:
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
