"""Rules on what a training writes: a place that can be written to, nothing of the user's that it would replace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wan_fixes.filesystem import network_file_system
from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction
from wan_fixes.preflight.near_paths import lies_in, real_path
from wan_fixes.preflight.training_data import ConceptEntry
from wan_fixes.preflight.values import shown
from wan_fixes.wan.weight_files import WeightFileError, read_header

#: OneTrainer's output formats that are folders; every other one, and what the standalone host writes, is a file.
_FOLDER_FORMATS: Final = ("DIFFUSERS", "INTERNAL")
#: Parts of the names of an adapter's weights, of all kinds that OneTrainer trains.
_ADAPTER_WORDS: Final = ("lora", "hada_", "lokr", "oft", "dora")
#: Folders in a cache folder that OneTrainer deletes when it clears the cache, and how others begin.
_CLEARED: Final = ("image", "text")
_CLEARED_PREFIX: Final = "epoch-"
_FOLDERS: Final = {"workspace_dir": "the workspace", "cache_dir": "the cache"}


def destination(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Where the weights are written when all is done: found out now, and not then."""
    field = "output_model_destination"
    text = configuration.text(field)
    if configuration.is_for_onetrainer and configuration.is_on("only_cache"):
        return  # nothing is written but the cache
    if not text.strip():
        yield ConfigFinding(
            "error",
            field,
            "no place is named for what is trained",
            "it is written when the training ends, and would be lost",
            'name a file, like "models/lora.safetensors"',
        )
        return
    path = configuration.written_to(text)
    in_onetrainer = configuration.is_for_onetrainer
    is_file = not in_onetrainer or configuration.text("output_model_format") not in _FOLDER_FORMATS
    if is_file and os.path.isdir(path):  # noqa: PTH112 - it takes any text
        if in_onetrainer:  # writes a file with the time as its name into it
            yield from _unwritable(field, "what is trained", path)
            return
        yield ConfigFinding(
            "error",
            field,
            f"{shown(text)} is a folder",
            "the standalone host writes a file there when the training ends",
            f'name a file in it, like "{(Path(text) / "lora.safetensors").as_posix()}"',
        )
        return
    if not is_file and os.path.isfile(path):  # noqa: PTH113
        yield ConfigFinding(
            "error", field, f"{shown(text)} is a file", "a folder is written there", "name a folder, or remove the file"
        )
        return
    yield from _unwritable(field, "what is trained", path.parent)
    if is_file and configuration.is_lora and configuration.variant is not None and _lacks_its_ending(path):
        better = f"{text.strip()}.safetensors"
        is_meant = not path.suffix and not text.rstrip().endswith(("/", "\\"))  # else a folder is
        yield ConfigFinding(
            "warning",
            field,
            f"{shown(text)} does not end in .safetensors",
            "other programs know a LoRA by its ending",
            f"write it as {shown(better)}" if is_meant else 'name a file, like "models/lora.safetensors"',
            Correction(field, better) if is_meant else None,
        )
    yield from _replaced(configuration, field, text, path)


def _lacks_its_ending(path: Path) -> bool:
    return path.suffix.lower() != ".safetensors"


def _replaced(configuration: Configuration, field: str, text: str, path: Path) -> Iterator[ConfigFinding]:
    """A LoRA of an earlier run may be replaced; anything else that lies there is the user's."""
    if not configuration.is_lora or configuration.is_on("prevent_overwrites") or not os.path.isfile(path):  # noqa: PTH113
        return
    try:
        names = read_header(path)
    except (WeightFileError, ValueError):
        kind = "no file of weights"
    else:
        if not names or any(word in name.lower() for name in names for word in _ADAPTER_WORDS):
            return
        kind = "a whole model and no LoRA"
    yield ConfigFinding(
        "error",
        field,
        f"{shown(text)} is there already, and is {kind}",
        "it would be replaced when the training ends",
        "name another file, or move that one away",
    )


def sample_file(configuration: Configuration) -> Iterator[ConfigFinding]:
    """OneTrainer writes the samples to make into the workspace before all else, and stops where it cannot read them."""
    field = "sample_definition_file_name"
    values, text = configuration.values, configuration.text(field)
    # Both stand in all that OneTrainer writes out; a preset that says nothing of samples gets those of the window.
    is_read = "samples" in values and values["samples"] is None and field in values
    if not is_read or not configuration.is_for_onetrainer:
        return
    if not os.path.exists(configuration.base / text):  # noqa: PTH110 - it takes any text
        yield ConfigFinding(
            "error",
            field,
            f"there is no {shown(text)}, which says what to make samples of",
            "OneTrainer reads it when a training starts, whether samples are made or not",
            "open the tab for sampling once, which makes the file, or name one; [] in it means none",
        )


def written_folders(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Workspace and cache can be made and written to."""
    for field, what in _FOLDERS.items():
        text = configuration.text(field)
        if text.strip():
            yield from _unwritable(field, what, configuration.written_to(text))
        else:
            yield ConfigFinding("error", field, f"no folder is named for {what}", "a training needs one", "name one")


def _unwritable(field: str, what: str, folder: Path) -> Iterator[ConfigFinding]:
    there = next((place for place in (folder, *folder.parents) if os.path.exists(place)), None)  # noqa: PTH110
    if there is None:
        reason = f"there is no drive for {folder}"
    elif not os.path.isdir(there):  # noqa: PTH112
        reason = f"{there} is a file, and a folder is needed there"
    elif not os.access(there, os.W_OK):
        reason = f"{there} may not be written to"
    elif "\0" in str(folder):
        reason = "no folder can have such a name"
    else:
        return
    yield ConfigFinding("error", field, f"{what} cannot be written", reason, "name another place")


def network_cache(configuration: Configuration) -> Iterator[ConfigFinding]:
    """The cache is read at every step, and its index wants a disk of this machine."""
    text = configuration.text("cache_dir")
    if not text.strip() or "\0" in text or not configuration.is_on("latent_caching"):
        return
    try:
        kind = network_file_system(configuration.written_to(text))
    except (OSError, ValueError, RuntimeError):  # a name that no system has
        return
    if kind is not None:
        yield ConfigFinding(
            "warning",
            "cache_dir",
            f"the cache lies on a network drive ({kind})",
            "each step reads it, and two machines at once can spoil its index",
            "name a folder on a disk of this machine; the clips may stay where they are",
        )


def own_output_as_data(configuration: Configuration) -> Iterator[ConfigFinding]:
    """What a training writes does not become what it trains on, nor do clips lie where it deletes."""
    for concept in configuration.data.trained:
        if not concept.is_there:
            continue
        yield from _workspace_in(configuration, concept)
        yield from _cache_around(configuration, concept)


def _workspace_in(configuration: Configuration, concept: ConceptEntry) -> Iterator[ConfigFinding]:
    workspace = real_path(configuration.written_to(configuration.text("workspace_dir") or "."))
    folder = concept.real_folder
    is_trained_on = concept.is_recursive and lies_in(workspace, folder)
    if is_trained_on or workspace == folder:
        yield ConfigFinding(
            "warning",
            "workspace_dir",
            f"the workspace lies in the folder of concept {shown(concept.name)}",
            "the samples that are made there are collected as clips by the next training"
            if is_trained_on
            else "samples and backups come to lie among your clips",
            "name a workspace outside of it",
        )


def _cache_around(configuration: Configuration, concept: ConceptEntry) -> Iterator[ConfigFinding]:
    cache = real_path(configuration.written_to(configuration.text("cache_dir") or "."))
    folder = concept.real_folder
    if folder.startswith(os.path.join(cache, "")):  # noqa: PTH118 - of a path with its links resolved
        first = Path(folder).relative_to(cache).parts[0]
        if first in _CLEARED or first.startswith(_CLEARED_PREFIX):
            is_cleared = all(map(configuration.is_on, ("clear_cache_before_training", "latent_caching")))
            yield ConfigFinding(
                "error" if is_cleared and configuration.is_for_onetrainer else "warning",
                "cache_dir",
                f"the clips of concept {shown(concept.name)} lie in the cache folder, in {first}",
                "OneTrainer deletes folders of that name when it clears its cache, and your clips with them",
                "name another cache folder",
            )
    elif lies_in(cache, folder) and (concept.is_recursive or cache == folder):
        yield ConfigFinding(
            "warning",
            "cache_dir",
            f"the cache lies in the folder of concept {shown(concept.name)}",
            "all its files are looked through for clips at every start, and clearing it deletes folders there",
            "name a cache folder outside of it",
        )
