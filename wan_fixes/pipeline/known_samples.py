"""What a cache knows of its samples from the last start: keys and plain values, without looking at what is unchanged.

A sample is unchanged while its file and those that go by its name are in the same state, under the same settings,
modules and encoders. What is known serves three purposes: an unchanged sample costs a start next to nothing, its clip
is not measured again, and where its concept's folder is not there at all it is trained from the cache alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from wan_fixes.errors import CriticalError
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.fingerprint import describe, is_pure, wiring_of
from wan_fixes.pipeline.origins import Origin, shared_state, stem_of
from wan_fixes.pipeline.quiet_gc import quiet_gc
from wan_fixes.pipeline.sample_keys import SampleKeys
from wan_fixes.pipeline.upstream import (
    all_producers,
    collector,
    field_of,
    from_collector,
    input_names,
    reorders,
    unwrap,
)
from wan_fixes.store import SampleStore, make_key
from wan_fixes.store.manifest import Manifest, SampleRow, Samples, is_carried

logger = logging.getLogger(__name__)

# For the state of a sample of which files are read that do not go by its name: nothing tells that those are the same.
_READS_OTHERS = "-"
# For states that say nothing: of those, and of files that had just changed.
_NOT_TOLD = ("", _READS_OTHERS)
# Fields of a concept that say where its files lie, what it is called, and what a host counted in its folder.
_PLACES = {"path", "prompt_path", "name", "concept_stats"}
# Settings that decide what a sample is made of, and are not among the attributes of the modules.
_SETTINGS = ("missing_captions", "max_pixels_per_frame")


class KnownSamples:
    """Of the cache at index `at` of a pipeline's `modules`. Made before any module has started."""

    def __init__(
        self,
        store: SampleStore,
        sample_keys: SampleKeys,
        cached_names: list[str],
        modules: list[Any],
        at: int,
        context: PipelineContext,
    ) -> None:
        self._store = store
        self._sample_keys = sample_keys
        self._modules = modules
        self._context = context
        self._collector = collector(modules, at)
        producing = {index: unwrap(modules[index]) for index in all_producers(modules, at, cached_names)}
        self._producing = list(producing.values())
        self._is_usable = (
            hasattr(self._collector, "origins")
            and all(is_pure(modules[index]) for index in producing)
            and not any(reorders(modules[index]) for index in producing)
        )
        self._wiring = [_wiring(module) for module in self._producing]
        self._path_names = [(index, module.path_in_name) for index, module in producing.items() if _reads_file(module)]
        reads = (name for module in self._producing for name in input_names(module))
        self._concept_names = sorted({name for name in reads if name.startswith("concept.")})
        self._identity = ""
        self._manifest: Manifest | None = None
        #: All samples of the list, one concept's behind the other's, and where each is among them.
        self._listed = Samples()
        self._places: dict[tuple[int, str, int], int] = {}
        self._same: dict[int, int] | None = None
        self._digest = ""
        #: When an entry last came or went, as `present` saw it.
        self._folder_times: dict[str, int] = {}

    # What is known

    def depends_on(self, module: Any) -> bool:
        """Whether what this module gives goes into the cache."""
        return any(producing is module for producing in self._producing)

    def listing(self, concept: int) -> list[Origin]:
        """The samples of a concept whose folder is not there, where they came with an archive."""
        manifest = self._known()
        if concept >= len(manifest.concepts) or not manifest.carried[concept]:
            return []
        if manifest.labels[concept] != _label(self._collector.concepts[concept]):
            return []
        samples = manifest.concepts[concept]
        return [Origin(concept, *names) for names in zip(samples.names, samples.chunks, strict=True)]

    def chunks(self, concept: int) -> dict[tuple[str, str], int]:
        """How many samples the files of a concept give, by name and state."""
        manifest = self._known()
        samples = manifest.concepts[concept] if concept < len(manifest.concepts) else Samples()
        files = zip(samples.names, samples.states, strict=True)
        return {file: count for file, count in zip(files, samples.counts, strict=True) if file[1]}

    def indices(self) -> set[int]:
        """The samples that are unchanged: each has an entry."""
        return set(self._unchanged())

    @quiet_gc()
    def keys(self) -> dict[tuple[int, int], str]:
        """The keys of the unchanged samples, by index and the entry's number."""
        unchanged = self._unchanged()
        keys: dict[tuple[int, int], str] = {}
        for number, column in self._listed.keys.items():
            keys |= {(index, number): column[place] for index, place in unchanged.items() if column[place]}
        return keys

    def present(self, keys: Iterable[str]) -> dict[str, str]:
        """The plain values (JSON) of those entries that are there as they were known. Nothing of them is opened.

        Where no entry came or went since, none is asked for: one that was spoilt in its place is found when it is read.
        """
        known, then = self._known().entries, self._known().folder_times
        wanted = [key for key in keys if key in known]
        times = self._store.folder_times(wanted)
        self._folder_times |= times
        quiet = {folder for folder, time in times.items() if time == then.get(folder)}
        moved = {key for key in wanted if key[:2] not in quiet}
        sizes = self._store.sizes(moved)
        return {key: known[key][1] for key in wanted if key not in moved or sizes.get(key) == known[key][0]}

    def _unchanged(self) -> dict[int, int]:
        """Where each sample is on the list that is as it was, by index.

        The pipeline lists its files once, so this is seen once.
        """
        if self._same is None:
            self._digest = self._context.quarantine.digest()
            self._same = self._find_unchanged()
        return self._same

    @quiet_gc()
    def _find_unchanged(self) -> dict[int, int]:
        manifest = self._known()
        if len(manifest.concepts) != len(self._collector.concepts):
            return {}
        same = [bool(extra) and extra == self._shared(number) for number, extra in enumerate(manifest.extras)]
        if manifest.quarantine != self._digest:  # any file may be on the list of bad ones by now
            same = [False] * len(same)
        missing = [not self._collector.is_there(number) for number in range(len(same))]
        whole = [self._is_whole(number) for number in range(len(same))]
        # Of most concepts this settles it for all samples together.
        is_certain = [
            missing[number] or (same[number] and whole[number] and set(samples.states).isdisjoint(_NOT_TOLD))
            for number, samples in enumerate(manifest.concepts)
        ]

        def is_as_it_was(index: int, concept: int, place: int) -> bool:
            state = self._listed.states[place]
            is_told = same[concept] and state not in _NOT_TOLD
            return is_told and (whole[concept] or state == self._collector.state_at(index))

        origins = self._collector.origins
        return {
            index: place
            for index, (origin, place) in enumerate(zip(origins, map(self._places.get, origins), strict=True))
            if place is not None and (is_certain[origin[0]] or is_as_it_was(index, origin[0], place))
        }

    def _is_whole(self, concept: int) -> bool:
        """Whether all of a concept's files are as they were."""
        digest = self._collector.digest(concept) if self._collector.is_there(concept) else ""
        return bool(digest) and digest == self._known().digests[concept]

    @quiet_gc()
    def _known(self) -> Manifest:
        if self._manifest is None:
            found = self._store.read_manifest(self._name()) if self._is_usable else None
            self._manifest = self._take(found or Manifest())
        return self._manifest

    def _take(self, manifest: Manifest) -> Manifest:
        self._listed = Samples()
        numbers: list[int] = []
        for number, samples in enumerate(manifest.concepts):
            self._listed.extend(samples)
            numbers += [number] * len(samples)
        origins = zip(numbers, self._listed.names, self._listed.chunks, strict=True)
        self._places = dict(zip(origins, range(len(numbers)), strict=True))
        return manifest

    def _name(self) -> str:
        """Which set of settings this is; the first time the encoders' weights are hashed for it."""
        if not self._identity:
            settings = asdict(self._context.settings)
            rules = {name: settings[name] for name in _SETTINGS}
            shared = [self._sample_keys.shared(part) for part in range(len(self._sample_keys.parts))]
            self._identity = make_key({"shared": shared, "rules": rules, "modules": self._wiring})
        return self._identity

    def _shared(self, concept: int) -> str:
        """The state of the files that a concept names itself, of prompts or of tags, for all its samples."""
        read_anyway = {name for _, name in self._path_names}
        paths = []
        for name in self._concept_names:
            value = field_of({"concept": self._collector.concepts[concept]}, name.split("."))
            if value and isinstance(value, str) and (name in read_anyway or os.path.isfile(value)):  # noqa: PTH113
                paths.append(value)
        return shared_state(paths)

    # What is to be known

    @quiet_gc()
    def remember(self, keys: Mapping[tuple[int, int], str], values: Mapping[str, str]) -> None:
        """Write down the samples that have entries: `keys` by index and number, their `values` by key.

        What the last list has of samples that are unchanged is kept. A full disk does not matter.
        """
        if not self._is_usable:
            return
        digest = self._context.quarantine.digest()
        known = self._unchanged() if digest == self._digest else {}
        if self._says_all_of(values, known):
            return
        times = self._store.folder_times(values)  # before the entries are looked at
        is_settled = times.items() <= self._known().folder_times.items()
        by_index: dict[int, dict[int, str]] = {}
        for (index, number), key in keys.items():
            if key in values:
                by_index.setdefault(index, {})[number] = key
        if is_settled and not self._differs(by_index, known):
            return
        sizes = self._store.sizes(values)
        rows: list[list[SampleRow]] = [[] for _ in self._collector.concepts]
        entries: dict[str, tuple[int, str]] = {}
        for index, origin in enumerate(self._collector.origins):
            place = known.get(index)
            before = {} if place is None else self._listed.keys_of(place)
            row = SampleRow(origin.name, origin.chunk, "", 0, before | by_index.get(index, {}))
            if not row.keys or not is_carried(origin.name):
                continue
            if place is not None:
                row.state, row.count = self._listed.states[place], self._listed.counts[place]
            else:
                reads_others = not self._reads_only_its_own(index)
                row.state = _READS_OTHERS if reads_others else self._collector.state_at(index)
                row.count = self._collector.count_at(index)
            rows[origin.concept].append(row)
            for key in row.keys.values():
                if key in sizes:
                    entries[key] = sizes[key], values[key]
        concepts = [Samples.of(concept) for concept in rows]
        extras = [self._extra(number) for number in range(len(concepts))]
        labels = [_label(concept) for concept in self._collector.concepts]
        carried = [not self._collector.is_there(number) for number in range(len(concepts))]
        digests = [self._digest_of(number) for number in range(len(concepts))]
        self._write(Manifest(concepts, digests, extras, labels, carried, entries, digest, times))
        places = map(self._places.get, self._collector.origins)
        self._same = {index: place for index, place in enumerate(places) if place is not None}
        self._digest = digest

    def _says_all_of(self, values: Mapping[str, str], known: Mapping[int, int]) -> bool:
        """Whether the last list has all these entries, none of its samples is new or gone, and every folder is as then.

        It is asked at each start, before anything is compared sample by sample.
        """
        is_there = self._collector.is_there
        return (
            bool(known)
            and self._folder_times.items() <= self._known().folder_times.items()
            and len(known) == len(self._places)
            and values.keys() <= self._known().entries.keys()
            and all(self._is_whole(number) or not is_there(number) for number in range(len(self._known().concepts)))
        )

    def _extra(self, concept: int) -> str:
        return self._shared(concept) if self._is_told(concept) else self._known().extras[concept]

    def _digest_of(self, concept: int) -> str:
        return self._collector.digest(concept) if self._is_told(concept) else self._known().digests[concept]

    def _is_told(self, concept: int) -> bool:
        """Whether a concept's own files tell what is to be known of it; else the last list does."""
        return self._collector.is_there(concept) or concept >= len(self._known().concepts)

    def _differs(self, keys: Mapping[int, dict[int, str]], known: Mapping[int, int]) -> bool:
        origins = self._collector.origins
        for index, own in keys.items():
            place = self._places.get(origins[index])
            if place is None or not own.items() <= self._listed.keys_of(place).items():
                if is_carried(origins[index].name):
                    return True
                continue
            state = self._listed.states[place]
            if index not in known and state != _READS_OTHERS and (state or self._collector.state_at(index)):
                return True
        if any(self._digest_of(number) not in ("", digest) for number, digest in enumerate(self._known().digests)):
            return True
        return not self._places.keys() <= set(origins)  # some are gone

    def _reads_only_its_own(self, index: int) -> bool:
        """Whether every file that is read for a sample goes by its name: then its state is that of all of them."""
        own = stem_of(str(self._sample_keys.path_of(index)))
        for position, name in self._path_names:
            if name.startswith("concept."):
                continue
            listed = from_collector(self._modules, position, name)
            module = unwrap(self._modules[position])
            path = listed(index) if listed else module._get_previous_item(0, name, index)
            if path and stem_of(str(path)) != own:
                return False
        return True

    def _write(self, manifest: Manifest) -> None:
        self._manifest = self._take(manifest)
        try:
            self._store.write_manifest(self._name(), manifest)
        except CriticalError as error:
            logger.warning("the list of samples is not written: %s", error)


def known_samples(modules: list[Any]) -> list[KnownSamples]:
    """Those of the validated caches in a pipeline, in order."""
    found = (getattr(unwrap(module), "known_samples", None) for module in modules)
    return [known for known in found if isinstance(known, KnownSamples)]


def _wiring(module: Any) -> dict[str, Any]:
    """Of the concepts, what may shape a sample: not where its files lie, which differs from machine to machine."""
    if not hasattr(module, "concepts"):
        return wiring_of(module)
    return {"type": type(module).__name__, "concepts": describe([_without_places(part) for part in module.concepts])}


def _without_places(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without_places(part) for name, part in value.items() if name not in _PLACES}


def _reads_file(module: Any) -> bool:
    return isinstance(getattr(module, "path_in_name", None), str) and not hasattr(module, "path_out_name")


def _label(concept: Mapping[str, Any]) -> str:
    return str(concept.get("name") or PurePath(str(concept.get("path"))).name)
