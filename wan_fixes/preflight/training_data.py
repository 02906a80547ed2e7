"""The concepts of a configuration, and the clips and images in their folders, as far as names tell."""

from __future__ import annotations

import itertools
import json
import locale
import math
import os
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wan_fixes.media import MASK_POSTFIXES, ScanResult, is_image, is_sample, scan_folder
from wan_fixes.preflight.near_paths import first_place, real_path
from wan_fixes.preflight.values import finite_number
from wan_fixes.store.manifest import was_carried

if TYPE_CHECKING:
    from wan_fixes.preflight.configuration import Configuration

_LARGEST_FILE: Final = 16 << 20  # bytes of a concept file
_MOST_SUBFOLDERS: Final = 200  # that are looked into for clips, where a folder has none itself
_KINDS_SHOWN: Final = 3
_BALANCING: Final = ("balancing", "repeats")  # the second is how older versions said it


class ConceptEntry:
    """One concept that is switched on.

    Parameters
    ----------
    number:
        Its place in the list, from 0.
    values:
        What it holds, of any types.
    """

    def __init__(self, number: int, values: Mapping[str, Any], configuration: Configuration) -> None:
        self.number = number
        self.values = values
        self._configuration = configuration

    def field(self, name: str) -> str:
        """The full name of one of its fields."""
        return f"concepts.{self.number}.{name}"

    def get(self, *names: str) -> Any:
        """What stands in a field of it, or None."""
        found: Any = self.values
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    @property
    def name(self) -> str:
        """For people."""
        name = self.get("name")
        if isinstance(name, str) and name:
            return name
        return (self.path and self.folder.name) or f"number {self.number + 1}"

    @property
    def kind(self) -> str:
        """STANDARD, VALIDATION or PRIOR_PREDICTION."""
        if self.get("validation_concept") is True:  # as older versions said it
            return "VALIDATION"
        kind = self.get("type")
        return kind if isinstance(kind, str) else "STANDARD"

    @property
    def path(self) -> str:
        """Its folder as it is written; "" where it is no text."""
        path = self.get("path")
        return path if isinstance(path, str) else ""

    @cached_property
    def folder(self) -> Path:
        """Where it is looked for, whether it is there or not."""
        return self._configuration.data.find(self.path)

    @cached_property
    def real_folder(self) -> str:
        """The same without links, to be compared."""
        return real_path(self.folder)

    @cached_property
    def is_recursive(self) -> bool:
        """Whether its subfolders count."""
        return self.get("include_subdirectories") is True

    @cached_property
    def is_there(self) -> bool:
        """Whether its folder is one."""
        return bool(self.path) and os.path.isdir(self.folder)  # noqa: PTH112 - it takes any text

    @cached_property
    def _found(self) -> ScanResult:
        return scan_folder(self.folder, recursive=self.is_recursive) if self.is_there else ScanResult()

    @cached_property
    def samples(self) -> list[str]:
        """The clips and images that count, by their names."""
        return [path for path in self._found.paths if is_sample(path)]

    @property
    def has_only_images(self) -> bool:
        """Whether nothing of it moves."""
        return bool(self.samples) and all(map(is_image, self.samples))

    @property
    def has_masks(self) -> bool:
        """Whether any of its files is a mask."""
        return any(Path(path).stem.endswith(MASK_POSTFIXES[0]) for path in self._found.paths)

    @property
    def has_captions(self) -> bool:
        """Whether any of its clips and images has a text file of its name."""
        found = self._found.paths
        texts = {os.path.splitext(path)[0] for path in found if path.lower().endswith(".txt")}  # noqa: PTH122
        return any(os.path.splitext(path)[0] in texts for path in self.samples)  # noqa: PTH122 - of 100,000 paths

    @property
    def other_files(self) -> str:
        """What it holds instead of clips and images, in words; "" where there is nothing."""
        kinds = Counter(Path(path).suffix.lower() or "without an ending" for path in self._found.paths)
        return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_KINDS_SHOWN))

    def subfolders_with_samples(self) -> list[Path]:
        """The folders in its folder that hold clips or images themselves."""
        try:
            entries = itertools.islice(self.folder.iterdir(), _MOST_SUBFOLDERS)
            folders = sorted(entry for entry in entries if entry.is_dir())
        except OSError:
            return []
        return [folder for folder in folders if any(map(is_sample, scan_folder(folder, recursive=False).paths))]

    @property
    def samples_by_epoch(self) -> float:
        """How many of its samples an epoch uses."""
        repeats = next((self.get(name) for name in _BALANCING if self.get(name) is not None), 1.0)
        balancing = finite_number(repeats)
        factor = 1.0 if balancing is None else max(0.0, balancing)
        return factor if self.get("balancing_strategy") == "SAMPLES" else factor * len(self.samples)


class TrainingData:
    """The concepts that a configuration holds, or that the file which it names holds.

    Parameters
    ----------
    inline:
        The configuration's own concepts; None where they are in the file.
    file_name, cache_name:
        As the configuration writes them.
    """

    def __init__(self, inline: Any, file_name: str, cache_name: str, configuration: Configuration) -> None:
        self._inline = inline
        self._configuration = configuration
        self._cache = configuration.written_to(cache_name) if cache_name else None
        self.file = configuration.read_from(file_name) if file_name and inline is None else None

    @property
    def is_inline(self) -> bool:
        """Whether the configuration itself has the concepts, so that they can be corrected in it."""
        return self._inline is not None

    @property
    def where(self) -> str:
        """For messages about concepts of a file: its name."""
        return "" if self.file is None else f" (in {self.file.name})"

    def find(self, text: str) -> Path:
        """The path that is written in a concept: beside the concept file where it is there, else as anywhere."""
        folders = self._configuration.read_folders
        if self.file is not None and not self._configuration.is_for_onetrainer:
            folders = (self.file.parent, *folders)
        return first_place(text, folders)

    @cached_property
    def listed(self) -> Any:
        """What the list is, of any type. Raises OSError or ValueError where its file cannot be read."""
        if self.file is None:
            return self._inline
        with self.file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ValueError("it is far too large for a concept file")
        try:
            return json.loads(self._decoded(content))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def _decoded(self, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            if not self._configuration.is_for_onetrainer:
                raise
        # OneTrainer writes and reads it in the system's own encoding, which on Windows is another one.
        try:
            return content.decode(locale.getpreferredencoding(False))
        except LookupError as error:
            raise ValueError(str(error)) from None

    @cached_property
    def enabled(self) -> list[ConceptEntry]:
        """Those that are switched on; validation concepts only where OneTrainer validates: the other host does not."""
        try:
            listed = self.listed
        except (OSError, ValueError):
            return []
        entries = [
            ConceptEntry(number, entry, self._configuration)
            for number, entry in enumerate(listed if isinstance(listed, list) else [])
            if isinstance(entry, Mapping) and entry.get("enabled") is not False
        ]
        validates = self._configuration.is_for_onetrainer and self._configuration.is_on("validation")
        return [entry for entry in entries if validates or entry.kind != "VALIDATION"]

    @property
    def trained(self) -> list[ConceptEntry]:
        """Those whose samples are trained on."""
        return [entry for entry in self.enabled if entry.kind != "VALIDATION"]

    @cached_property
    def is_carried(self) -> bool:
        """Whether the cache came from another machine: the folders of clips need not be there then."""
        try:
            return self._cache is not None and was_carried(self._cache)
        except (OSError, ValueError):
            return False

    @property
    def samples_by_epoch(self) -> int | None:
        """How many samples an epoch uses; None where that is not known."""
        concepts = self.trained
        if not concepts or not all(concept.is_there for concept in concepts):
            return None
        if self._configuration.settings.frame_window == "chunks":  # a clip gives several, which takes a look into it
            return None
        return math.floor(min(1e15, sum(concept.samples_by_epoch for concept in concepts)))
