"""Concepts to a list of files: loop-proof, and with a word for whatever is left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wan_fixes.errors import SampleError
from wan_fixes.media import scan_folder
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.fan_out import fan_out


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
        self._samples: list[tuple[str, dict[str, Any], int]] = []

    def length(self) -> int:
        return len(self._samples)

    def get_inputs(self) -> list[str]:
        return [self.concept_in_name]

    def get_outputs(self) -> list[str]:
        return [self.path_out_name, self.concept_out_name, *([self.chunk_out_name] if self.chunk_out_name else [])]

    def list_chunks(self, chunk_out_name: str, chunks_in: Callable[[int, str], int]) -> None:
        """List each file `chunks_in(variation, path)` times; the item `chunk_out_name` then counts from 0."""
        self.chunk_out_name = chunk_out_name
        self._chunks_in = chunks_in

    def start(self, variation: int) -> None:
        concepts = range(self._get_previous_length(self.concept_in_name))
        for index in tqdm(concepts, desc="enumerating sample paths"):
            concept = self._get_previous_item(variation, self.concept_in_name, index)
            if not concept[self.enabled_in_name]:
                continue
            recursive = self._get_previous_item(variation, self.include_subdirectories_in_name, index)
            folder = str(concept[self.path_in_name])
            found = [(path, concept, 0) for path in self._collect(folder, bool(recursive))]
            if not found:
                there = Path(folder).is_dir()
                self.context.warn(
                    folder,
                    "the concept has no usable file" if there else "the concept's folder does not exist",
                    "correct the concept's path, or switch the concept off",
                    type(self).__name__,
                )
            self._samples += found
        files = len(self._samples)
        self.context.event("paths_collected", f"found {files} files to train on", files=files)
        if self._chunks_in is not None:
            self._repeat(variation, self._chunks_in)
            samples = len(self._samples)
            self.context.event("clips_chunked", f"{files} files give {samples} samples", files=files, samples=samples)

    def _repeat(self, variation: int, chunks_in: Callable[[int, str], int]) -> None:
        """List each file once for each of its chunks; one that can't be measured once: what reads it says why."""

        def count(path: str) -> int:
            try:
                return chunks_in(variation, path)
            except SampleError:
                return 1

        paths = dict.fromkeys(path for path, *_ in self._samples)
        work = fan_out(self._state.executor, count, paths, self.context.recovery.policy.max_threads)
        bar = tqdm(work, total=len(paths), desc="counting chunks", unit="clip")
        chunks = {path: future.result() for path, future in bar}
        self._samples = [(path, concept, chunk) for path, concept, _ in self._samples for chunk in range(chunks[path])]

    def _collect(self, folder: str, recursive: bool) -> list[str]:
        result = scan_folder(folder, recursive=recursive)
        for path, reason in result.problems:
            if Path(path).suffix.lower() in self.extensions or not Path(path).suffix:
                fix = "restore it, make it readable, or take it out of the folder"
                error = SampleError("left out", path=path, reason=reason, fix=fix, module=type(self).__name__)
                self.context.skip(None, error)
        return [path for path in map(os.fspath, result.files) if self._is_wanted(path)]

    def _is_wanted(self, path: str) -> bool:
        extension = os.path.splitext(path)[1]  # noqa: PTH122 - of 100,000 names
        stem = path.removesuffix(extension)
        return (
            extension.lower() in self.extensions
            and (not self.include_postfix or stem.endswith(self.include_postfix))
            and not stem.endswith(self.exclude_postfix or ("\0",))
        )

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        path, concept, chunk = self._samples[index]
        item = {self.path_out_name: path, self.concept_out_name: concept}
        return item | {self.chunk_out_name: chunk} if self.chunk_out_name else item
