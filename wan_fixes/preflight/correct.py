"""A corrected copy of a configuration, and one for another folder, in which relative paths lead where they led."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
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
    model, or a mistake.
    """
    result = copy.deepcopy(dict(config))
    before, after = (Configuration(config, base=base, beside=folder) for folder in (beside, new))
    concepts = config.get("concepts")
    fields = list(_READ)
    for number in range(len(concepts) if isinstance(concepts, list) else 0):
        fields += [f"concepts.{number}.path", f"concepts.{number}.text.prompt_path"]
    for field in fields:
        text = before.given(field)
        if not isinstance(text, str) or not text:
            continue
        path = before.read_from(text)
        if os.path.exists(path) and path != after.read_from(text):  # noqa: PTH110 - it takes any text
            _write(result, field, str(path))
    return result


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
