"""Finding training data: which folders below one hold clips or images, and a concepts file that names them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.new_file import write_new
from wan_fixes.media import is_image, is_sample, is_video, scan_folder

_CONCEPT_VERSION = 2
"""OneTrainer's format of a concept."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder that holds samples itself, those of its subfolders not counted.

    Attributes
    ----------
    name:
        Its path below the folder that was searched; that folder's own name for itself.
    without_caption:
        How many of the clips and images have no text file of their name.
    """

    path: str
    name: str
    clips: int
    images: int
    without_caption: int


def discover(folder: Path) -> tuple[list[DataFolder], list[tuple[str, str]]]:
    """Every folder with samples in and below `folder`, by name, and what could not be looked at: path and reason.

    Files are told by their names alone; `wan check` looks into them.

    Raises
    ------
    UserError
        If it is no folder.
    """
    if not folder.is_dir():
        raise UserError(
            "there is no such folder",
            path=folder,
            reason="it is a file" if folder.exists() else "",
            fix="name the folder that your clips are in",
        )
    top = folder.absolute()
    result = scan_folder(top)
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in result.files:
        if is_sample(path):
            by_folder[path.parent].append(path)
    captions = {path.with_suffix("") for path in result.files if path.suffix == ".txt"}
    found = [
        DataFolder(
            path=str(parent),
            name=str(parent.relative_to(top)) if parent != top else top.name,
            clips=sum(map(is_video, paths)),
            images=sum(map(is_image, paths)),
            without_caption=sum(path.with_suffix("") not in captions for path in paths),
        )
        for parent, paths in by_folder.items()
    ]
    problems = [(str(path), reason) for path, reason in result.problems]
    return sorted(found, key=lambda data: data.name), problems


def write_concepts(found: list[DataFolder], file: Path) -> None:
    """Write a concepts file, as OneTrainer reads it and a preset names it in `concept_file_name`.

    Raises
    ------
    UserError
        If there is such a file already: nothing of the user's is replaced. If it cannot be written.
    """
    concepts = [
        {
            "__version": _CONCEPT_VERSION,
            "name": data.name,
            "path": data.path,
            "include_subdirectories": False,
            "seed": number,
        }
        for number, data in enumerate(found, 1)
    ]
    text = json.dumps(concepts, indent=4, ensure_ascii=True) + "\n"
    write_new(file, text, "the concepts")
