"""A corrected copy of a configuration, and one for another folder, in which relative paths lead where they led."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction

#: Fields with the path of something that is read, beside those of concepts.
_READ: Final = ("base_model_name", "concept_file_name", "sample_definition_file_name")


def corrections_in(findings: Sequence[ConfigFinding]) -> list[Correction]:
    """What would be written: one correction for each field, the first that was found."""
    first: dict[str, Correction] = {}
    for finding in findings:
        if finding.correction is not None:
            first.setdefault(finding.correction.field, finding.correction)
    return list(first.values())


def corrected(config: Mapping[str, Any], findings: Sequence[ConfigFinding]) -> dict[str, Any]:
    """A deep copy with the corrections in it; what was found has to be of this very configuration."""
    result = copy.deepcopy(dict(config))
    for correction in corrections_in(findings):
        _write(result, correction.field, copy.deepcopy(correction.value))
    return result


def keeping_paths(config: Mapping[str, Any], *, base: Path, beside: Path, new: Path) -> dict[str, Any]:
    """A deep copy for a preset in the folder `new` instead of `beside`.

    A path that would lead elsewhere from there is written in full. What is found nowhere stays as it is: the name of a
    model, or a mistake. Concepts of a file are written into the copy where one of their paths would lead elsewhere: the
    file itself is left alone.
    """
    result = copy.deepcopy(dict(config))
    before = Configuration(config, base=base, beside=beside)
    fields = dict.fromkeys(_READ, before.read_from) | dict.fromkeys(_paths_of(before), before.data.find)

    def write_in_full(changed: Mapping[str, str]) -> None:
        for field, path in changed.items():
            _write(result, field, path)

    def moved() -> Configuration:
        return Configuration(result, base=base, beside=new)

    write_in_full(_elsewhere(before, fields, moved().read_from))
    if not before.data.is_inline:
        listed = Configuration({"concepts": _concepts_in(before)}, base=base)
        paths = dict.fromkeys(_paths_of(listed), before.data.find)
        if _elsewhere(listed, paths, moved().data.find):
            result["concepts"] = copy.deepcopy(listed.given("concepts"))
            write_in_full(_elsewhere(listed, paths, moved().data.find))
    return result


def _concepts_in(configuration: Configuration) -> Any:
    """Those of the concept file; None where it cannot be read."""
    try:
        return configuration.data.listed
    except (OSError, ValueError):
        return None


def _paths_of(configuration: Configuration) -> list[str]:
    """The fields of its own concepts that hold the path of something."""
    concepts = configuration.given("concepts")
    count = len(concepts) if isinstance(concepts, list) else 0
    return [f"concepts.{number}.{name}" for number in range(count) for name in ("path", "text.prompt_path")]


def _elsewhere(
    configuration: Configuration, fields: Mapping[str, Callable[[str], Path]], after: Callable[[str], Path]
) -> dict[str, str]:
    """The full paths of what each field's function finds, where `after` finds something else."""
    found = {}
    for field, before in fields.items():
        text = configuration.given(field)
        if isinstance(text, str) and text:
            path = before(text)
            if os.path.exists(path) and path != after(text):  # noqa: PTH110 - it takes any text
                found[field] = str(path)
    return found


def _write(config: dict[str, Any], field: str, value: Any) -> None:
    """Set a field by its dotted name; objects on the way that are missing are made."""
    *way, last = field.split(".")
    place: Any = config
    for name in way:
        if isinstance(place, list):
            place = place[int(name)]
            continue
        if not isinstance(place.get(name), (dict, list)):
            place[name] = {}
        place = place[name]
    place[last] = value
