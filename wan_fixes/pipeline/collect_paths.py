"""Concepts to a list of files: loop-proof, and with a word for whatever is left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import repeat
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wan_fixes.errors import SampleError
from wan_fixes.media import scan_folder
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.fan_out import fan_out
from wan_fixes.pipeline.known_samples import KnownSamples, known_samples
from wan_fixes.pipeline.origins import Listing, Origin
from wan_fixes.pipeline.quiet_gc import quiet_gc


class ValidatedCollectPaths(PipelineModule, RandomAccessPipelineModule):
    """In place of MGDS's CollectPaths, with its arguments.

    Only regular files are listed; each once, however many links lead to its folder. What is left out is
    reported, and so is a concept whose folder is missing or empty. Told so by `list_chunks`, it lists a clip several
    times.
    """

    def __init__(
        self,
        concept_in_name: str,
        path_in_name: str,
        include_subdirectories_in_name: str,
        enabled_in_name: str,
        path_out_name: str,
        concept_out_name: str,
        extensions: Iterable[str],
        include_postfix: list[str] | None,
        exclude_postfix: list[str] | None,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__()
        self.concept_in_name = concept_in_name
        self.path_in_name = path_in_name
        self.include_subdirectories_in_name = include_subdirectories_in_name
        self.enabled_in_name = enabled_in_name
        self.path_out_name = path_out_name
        self.concept_out_name = concept_out_name
        self.extensions = {extension.lower() for extension in extensions}
        self.include_postfix = tuple(include_postfix or ())
        self.exclude_postfix = tuple(exclude_postfix or ())
        self.context = context
        self.chunk_out_name: str | None = None
        self._chunks_in: Callable[[int, str], int] | None = None
        self._paths: list[str] = []
        self._origins: list[Origin] = []
        self._concepts: list[dict[str, Any]] = []
        self._concept_of: list[dict[str, Any]] = []  # of each sample; always this one list
        self._listings: list[Listing] = []
        self._missing: set[int] = set()
        self._unusable: set[str] = set()
        #: Of files that are listed several times, how often.
        self._counts: dict[str, int] = {}

    def length(self) -> int:
        return len(self._paths)

    def get_inputs(self) -> list[str]:
        return [self.concept_in_name]

    def get_outputs(self) -> list[str]:
        return [self.path_out_name, self.concept_out_name, *([self.chunk_out_name] if self.chunk_out_name else [])]

    def list_chunks(self, chunk_out_name: str, chunks_in: Callable[[int, str], int]) -> None:
        """List each file `chunks_in(variation, path)` times; the item `chunk_out_name` then counts from 0."""
        self.chunk_out_name = chunk_out_name
        self._chunks_in = chunks_in

    @property
    def concepts(self) -> list[dict[str, Any]]:
        """The enabled concepts, by number."""
        return self._concepts

    @property
    def origins(self) -> list[Origin]:
        """Where each sample comes from."""
        return self._origins

    @property
    def concept_at(self) -> Callable[[int], dict[str, Any]]:
        """Gives a sample's concept. No method of this class: 100,000 samples are asked for it five times each."""
        return self._concept_of.__getitem__

    def state_at(self, index: int) -> str:
        """The state of a sample's files (see `Listing`); "" where its concept's folder is not there."""
        concept = self._origins[index].concept
        return self._listings[concept].state_of(self._paths[index]) if self.is_there(concept) else ""

    def count_at(self, index: int) -> int:
        """How many samples a sample's file gives."""
        return self._counts.get(self._paths[index], 1)

    def digest(self, concept: int) -> str:
        """Of all files of a concept (see `Listing`)."""
        return self._listings[concept].digest

    def is_there(self, concept: int) -> bool:
        """Whether the concept's folder is there. If not, its samples are those that the caches know."""
        return concept not in self._missing

    @quiet_gc()
    def _list_concepts(self, variation: int, known: list[KnownSamples]) -> None:
        self._paths, self._origins, self._concepts, self._listings, self._missing = [], [], [], [], set()
        concepts = range(self._get_previous_length(self.concept_in_name))
        for index in tqdm(concepts, desc="enumerating sample paths"):
            concept = self._get_previous_item(variation, self.concept_in_name, index)
            if not concept[self.enabled_in_name]:
                continue
            recursive = self._get_previous_item(variation, self.include_subdirectories_in_name, index)
            self._concepts.append(concept)
            folder = str(concept[self.path_in_name])
            if not self._collect(folder, bool(recursive)) and not self._take_known(folder, known):
                there = Path(folder).is_dir()
                self.context.warn(
                    folder,
                    "the concept has no usable file" if there else "the concept's folder does not exist",
                    "correct the concept's path, or switch the concept off",
                    type(self).__name__,
                )

    def start(self, variation: int) -> None:
        known = known_samples(self.pipeline.modules)
        self._list_concepts(variation, known)
        files = len(set(self._paths))
        self.context.metrics.set("samples_known", files + len(self._unusable))
        self.context.event("paths_collected", f"found {files} files to train on", files=files)
        if self._chunks_in is not None:
            self._repeat(variation, self._chunks_in, known)
            samples = len(self._paths)
            self.context.event("clips_chunked", f"{files} files give {samples} samples", files=files, samples=samples)
        self._concept_of[:] = [self._concepts[number] for number, _, _ in self._origins]

    def _repeat(self, variation: int, chunks_in: Callable[[int, str], int], known: list[KnownSamples]) -> None:
        """List each file once for each of its chunks; one that can't be measured once: what reads it says why."""

        def count(path: str) -> int:
            try:
                return chunks_in(variation, path)
            except SampleError:
                return 1

        counted = [known[0].chunks(number) if known else {} for number in range(len(self._concepts))]
        chunks: dict[str, int] = {}
        unknown: dict[str, None] = {}
        for index, (path, origin) in enumerate(zip(self._paths, self._origins, strict=True)):
            number = counted[origin.concept].get((origin.name, self.state_at(index)), 0)
            if number:
                chunks[path] = number
            elif self.is_there(origin.concept):
                unknown[path] = None
        work = fan_out(self._state.executor, count, unknown, self.context.recovery.policy.max_threads)
        bar = tqdm(work, total=len(unknown), desc="counting chunks", unit="clip")
        chunks |= {path: future.result() for path, future in bar}
        self._counts = chunks
        listed = []
        for path, origin in zip(self._paths, self._origins, strict=True):
            each = range(chunks[path]) if self.is_there(origin.concept) else [origin.chunk]
            listed += [(path, origin._replace(chunk=chunk)) for chunk in each]
        self._paths, self._origins = [path for path, _ in listed], [origin for _, origin in listed]

    def _collect(self, folder: str, recursive: bool) -> int:
        """List the files of the latest concept; returns how many there are."""
        result = scan_folder(folder, recursive=recursive)
        for path, reason in result.problems:
            if Path(path).suffix.lower() in self.extensions or not Path(path).suffix:
                self._leave_out(str(path), reason)
        self._listings.append(Listing(result))
        number = len(self._concepts) - 1
        below = len(os.path.join(Path(folder), ""))  # noqa: PTH118 - its separator too, where the folder brings none
        # A folder's name with a dot in it is no extension.
        wanted = [path for path in result.paths if path[path.rfind(".") :].lower() in self.extensions]
        if self.include_postfix or self.exclude_postfix:
            wanted = list(filter(self._has_wanted_ending, wanted))
        self._paths += wanted
        names = (path[below:].replace(os.sep, "/") for path in wanted)
        self._origins += map(Origin, repeat(number), names, repeat(0))
        return len(wanted)

    def _leave_out(self, path: str, reason: str) -> None:
        """Say so once: it is met again in each epoch."""
        if path not in self._unusable:
            self._unusable.add(path)
            fix = "restore it, make it readable, or take it out of the folder"
            error = SampleError("left out", path=path, reason=reason, fix=fix, module=type(self).__name__)
            self.context.skip(None, error)

    def _take_known(self, folder: str, known: list[KnownSamples]) -> int:
        """List what the caches know of the latest concept, whose folder is not there; returns how many samples.

        So a cache that was carried here is trained on without its sources.
        """
        number = len(self._concepts) - 1
        if Path(folder).is_dir():
            return 0
        self._missing.add(number)
        listed = next(filter(None, (samples.listing(number) for samples in known)), [])
        self._paths += [os.path.join(folder, origin.name.replace("/", os.sep)) for origin in listed]  # noqa: PTH118
        self._origins += listed
        if listed:
            message = f"{folder} does not exist: {len(listed)} samples are taken from the cache"
            self.context.event("sources_missing", message, folder=folder, samples=len(listed))
        return len(listed)

    def _has_wanted_ending(self, path: str) -> bool:
        stem = path.rpartition(".")[0]
        return (not self.include_postfix or stem.endswith(self.include_postfix)) and not (
            self.exclude_postfix and stem.endswith(self.exclude_postfix)
        )

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        origin = self._origins[index]
        item: dict[str, Any] = {
            self.path_out_name: self._paths[index],
            self.concept_out_name: self._concepts[origin.concept],
        }
        if self.chunk_out_name:
            item[self.chunk_out_name] = origin.chunk
        return item
