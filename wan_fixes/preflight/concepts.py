"""Rules on the training data: concepts whose folders are there, hold something, have captions, and are named once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction, Severity
from wan_fixes.preflight.near_paths import as_meant, lies_in, near_path
from wan_fixes.preflight.training_data import ConceptEntry, TrainingData
from wan_fixes.preflight.values import finite_number, of_system, shown

_DISCOVER: Final = "`wan discover FOLDER --output concepts.json` finds the folders that hold clips"
_FOLDERS_SHOWN: Final = 3
_DATASET: Final = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
#: Numbers of a concept, and the least that each may be.
_NUMBERS: Final = {"balancing": 0, "loss_weight": 0, "image_variations": 1, "text_variations": 1}


def concept_list(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A list that can be read, with a concept that is trained."""
    data = configuration.data
    field = "concepts" if data.is_inline else "concept_file_name"
    try:
        listed = data.listed
    except (OSError, ValueError) as error:
        yield from _unreadable(configuration, error)
        return
    if not isinstance(listed, list):
        yield ConfigFinding(
            "error",
            field,
            f"the concepts are {shown(listed)}, and not a list",
            "there is nothing to train on",
            f"put them in brackets [ ]; {_DISCOVER}",
        )
    elif not data.trained:
        what = f"of {len(listed)} concepts none is enabled for training" if listed else "there is no concept"
        yield ConfigFinding(
            "error",
            field,
            what + data.where,
            "there is nothing to train on",
            "enable one" if listed else f"add the folder of your clips; {_DISCOVER}",
        )


def _unreadable(configuration: Configuration, error: OSError | ValueError) -> Iterator[ConfigFinding]:
    """The file of the concepts is not there, or is no JSON."""
    data, text = configuration.data, configuration.text("concept_file_name")
    if data.file is not None and not os.path.exists(data.file):  # noqa: PTH110 - it takes any text
        yield _missing(configuration, data.file, "concept_file_name", text, "the concept file", may_write=True)
        return
    if isinstance(error, json.JSONDecodeError):
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
    else:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else of_system(error)
    yield ConfigFinding(
        "error",
        "concept_file_name",
        f"the concept file {shown(text)} cannot be read",
        reason,
        "mend it, or have it written anew by OneTrainer's window or `wan discover`",
    )


def concept_folders(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Each concept names a folder that is there."""
    data = configuration.data
    for concept in data.enabled:
        field = concept.field("path")
        if not concept.path:
            yield ConfigFinding(
                "error",
                field,
                f"concept {shown(concept.name)} names no folder{data.where}",
                f"its path is {shown(concept.get('path'))}",
                f"name the folder of your clips, or disable the concept; {_DISCOVER}",
            )
        elif os.path.isfile(concept.folder):  # noqa: PTH113 - it takes any text
            yield ConfigFinding(
                "error",
                field,
                f"the path of concept {shown(concept.name)} is a file{data.where}",
                "a concept is a folder, with all clips in it",
                f"name its folder: {concept.folder.parent}",
            )
        elif not concept.is_there and not data.is_carried:
            what = f"the folder of concept {shown(concept.name)}{data.where}"
            if _may_be_fetched(configuration, concept):
                near = near_path(concept.folder)
                yield ConfigFinding(
                    "warning",
                    field,
                    f"{what} does not exist",
                    f"OneTrainer takes {shown(concept.path)} for the name of a dataset on the hub, and fetches that",
                    "name a folder where no dataset is meant" if near is None else f"did you mean {near}?",
                )
                continue
            yield _missing(configuration, concept.folder, field, concept.path, what, may_write=data.is_inline)


def _may_be_fetched(configuration: Configuration, concept: ConceptEntry) -> bool:
    """Whether it is OWNER/NAME and no path below a folder that is there: OneTrainer fetches such a dataset."""
    is_name = _DATASET.fullmatch(concept.path) is not None and ".." not in concept.path
    return is_name and configuration.is_for_onetrainer and not os.path.isdir(concept.folder.parent)  # noqa: PTH112


def _missing(
    configuration: Configuration, path: Path, field: str, text: str, what: str, *, may_write: bool
) -> ConfigFinding:
    """What is said of a path that leads nowhere, with the one that may be meant."""
    find = configuration.data.find if field.startswith("concepts.") else configuration.read_from
    meant = as_meant(text, find)
    if meant is not None:
        correction = Correction(field, meant) if may_write else None
        return ConfigFinding(
            "error",
            field,
            f"{what} does not exist as it is written",
            f"there is none at {shown(text)}, with all marks and blanks",
            f"write it as {shown(meant)}",
            correction,
        )
    near = near_path(path)
    is_sure = near is not None and may_write and str(near).casefold() == str(path).casefold()
    return ConfigFinding(
        "error",
        field,
        f"{what} does not exist",
        f"there is nothing at {path}",
        "correct the path" if near is None else f"did you mean {near}?",
        Correction(field, str(near)) if is_sure else None,
    )


def empty_concepts(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Each folder holds clips or images. Where none does, nothing can be trained on."""
    data = configuration.data
    there = [concept for concept in data.trained if concept.is_there]
    empty = [concept for concept in there if not concept.samples]
    if data.is_carried:
        return
    nothing_at_all = len(empty) == len(data.trained)
    for concept in empty:
        files = concept.other_files
        yield ConfigFinding(
            "error" if nothing_at_all else "warning",
            concept.field("path"),
            f"concept {shown(concept.name)} holds no clips and no images{data.where}",
            f"{concept.folder} {f'holds {files} alone' if files else 'is empty'}",
            *_where_they_are(concept, data),
        )


def _where_they_are(concept: ConceptEntry, data: TrainingData) -> tuple[str, Correction | None]:
    """The fix for an empty concept: its subfolders, where there is something in them."""
    below = [] if concept.is_recursive else concept.subfolders_with_samples()
    if not below:
        return "put clips there, or name another folder", None
    names = ", ".join(folder.name for folder in below[:_FOLDERS_SHOWN]) + (
        "" if len(below) <= _FOLDERS_SHOWN else ", …"
    )
    field = concept.field("include_subdirectories")
    correction = Correction(field, True) if data.is_inline else None
    return f"set include_subdirectories to true, or name one of its subfolders that do: {names}", correction


def repeated_folders(configuration: Configuration) -> Iterator[ConfigFinding]:
    """No two concepts take the same files in the same way."""
    seen: list[ConceptEntry] = []
    for concept in configuration.data.enabled:
        if not concept.is_there:
            continue
        for other in seen:
            # The same clips at another resolution, or with other captions, are meant.
            if _overlap(concept, other) and all(concept.get(name) == other.get(name) for name in ("image", "text")):
                what = f"concepts {shown(other.name)} and {shown(concept.name)} take the same clips"
                validates = "VALIDATION" in {concept.kind, other.kind} and concept.kind != other.kind
                yield ConfigFinding(
                    "warning",
                    concept.field("path"),
                    what,
                    "what is trained on says nothing about what is new, so that validation is of no use"
                    if validates
                    else "each of them is trained twice as often as the others",
                    "move some clips to a folder of their own" if validates else "remove one of the two concepts",
                )
                break
        seen.append(concept)


def _overlap(one: ConceptEntry, other: ConceptEntry) -> bool:
    first, second = one.real_folder, other.real_folder
    return (
        first == second
        or (other.is_recursive and lies_in(first, second))
        or (one.is_recursive and lies_in(second, first))
    )


def captions(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Prompts are where the concept looks for them. Single captions that lack are named with their clips."""
    settings = configuration.settings
    # OneTrainer's own pipeline, which goes by no setting of ours, trains on an empty prompt.
    are_left_out = settings.missing_captions == "skip" and (
        settings.validate_pipelines or not configuration.is_for_onetrainer
    )
    # One concept that is left out stops nothing while there is another.
    is_nothing_left = are_left_out and all(
        _has_no_prompt(concept, configuration) for concept in configuration.data.trained
    )
    becomes = "all of them are left out, as the settings ask" if are_left_out else "each is trained on an empty prompt"
    for concept in configuration.data.enabled:
        if not _has_no_prompt(concept, configuration):
            continue
        is_error = is_nothing_left and concept.kind != "VALIDATION"
        if concept.get("text", "prompt_source") == "concept":
            # The standalone host reads no concept without its file.
            is_error = is_error or not configuration.is_for_onetrainer
            yield _without_prompts(configuration, concept, "error" if is_error else "warning", becomes)
        else:
            yield ConfigFinding(
                "error" if is_error else "warning",
                concept.field("text.prompt_source"),
                f"not one clip of concept {shown(concept.name)} has a caption{configuration.data.where}",
                becomes,
                "write a text file of the same name beside each clip (dance.mp4, dance.txt), "
                "or set prompt_source to filename or concept",
            )


def _has_no_prompt(concept: ConceptEntry, configuration: Configuration) -> bool:
    """Whether not one of its clips has a prompt, as far as files tell."""
    data, source = configuration.data, concept.get("text", "prompt_source")
    if source == "concept":
        prompts = _prompt_path(concept)
        return not prompts or (not os.path.isfile(data.find(prompts)) and not data.is_carried)  # noqa: PTH113
    return source in (None, "sample") and bool(concept.samples) and not concept.has_captions


def _prompt_path(concept: ConceptEntry) -> str:
    path = concept.get("text", "prompt_path")
    return path if isinstance(path, str) else ""


def _without_prompts(
    configuration: Configuration, concept: ConceptEntry, severity: Severity, becomes: str
) -> ConfigFinding:
    """What is said of a concept that has one file for all its prompts, where there is none."""
    data, field, prompts = configuration.data, concept.field("text.prompt_path"), _prompt_path(concept)
    if prompts:
        what = f"the file with the prompts of concept {shown(concept.name)}{data.where}"
        found = _missing(configuration, data.find(prompts), field, prompts, what, may_write=data.is_inline)
        return replace(found, severity=severity, why=f"{found.why}: {becomes}")
    return ConfigFinding(
        severity,
        field,
        f"concept {shown(concept.name)} names no file with its prompts{data.where}",
        f"prompt_source is set to one file for the whole concept: {becomes}",
        "name a text file with one prompt in each line, or set prompt_source to sample",
    )


def concept_numbers(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Numbers that are numbers, and do not leave a concept without samples."""
    data = configuration.data
    for concept in data.trained:
        for name, least in _NUMBERS.items():
            value = concept.get(name)
            number = finite_number(value)
            if value is not None and (number is None or number < least):
                is_taken = configuration.is_for_onetrainer and _is_taken_by_onetrainer(name, number, data)
                yield ConfigFinding(
                    "warning" if is_taken else "error",
                    concept.field(name),
                    f"{name} of concept {shown(concept.name)} is {shown(value)}{data.where}",
                    f"a number of at least {least} is needed",
                    "write 1, which is the default",
                )
            elif name == "balancing" and number == 0:
                yield ConfigFinding(
                    "warning",
                    concept.field(name),
                    f"balancing of concept {shown(concept.name)} is 0{data.where}",
                    "none of its clips is ever trained on",
                    "write 1, or disable the concept",
                )


def _is_taken_by_onetrainer(name: str, number: float | None, data: TrainingData) -> bool:
    """Whether OneTrainer trains with it all the same: what its file has instead of a number counts as not set."""
    return not data.is_inline if number is None else name == "loss_weight"
