"""Concepts in OneTrainer's JSON: the folders of clips to train on, and what is done to their clips and captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.migrations import migrate_concept
from wan_fixes.hosts.standalone.onetrainer_fields import CONCEPT, CONCEPT_IMAGE, CONCEPT_TEXT
from wan_fixes.hosts.standalone.reading import FieldNote, FieldReader, as_limit, missing_path, read_json, resolve_input
from wan_fixes.preflight.resolution import check_resolution
from wan_fixes.store.manifest import was_carried

PROMPT_SOURCES = ("sample", "concept", "filename")
BALANCING_STRATEGIES = ("REPEATS", "SAMPLES")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptImage:
    """What is done to a concept's clips."""

    enable_crop_jitter: bool = True
    """Crop at a random place instead of the middle."""
    enable_random_flip: bool = False
    """Mirror half of the clips, left to right."""
    enable_fixed_flip: bool = False
    """Mirror every clip, unless random flipping is on."""
    enable_resolution_override: bool = False
    resolution_override: str = "512"
    """In place of the preset's resolution, when enabled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptText:
    """Where a concept's captions come from, and what is done to them."""

    prompt_source: str = "sample"
    """``sample``: a .txt file beside each clip; ``concept``: one file for all; ``filename``: the clip's name."""
    prompt_path: str = ""
    """The file of ``concept``: one prompt in each line, of which one is drawn."""
    enable_tag_shuffling: bool = False
    tag_delimiter: str = ","
    keep_tags_count: int = 1
    """So many tags at the beginning stay in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One concept, as OneTrainer has it, without what is not used here.

    Attributes
    ----------
    path:
        Folder, absolute.
    seed:
        Tells apart concepts that are the same otherwise. It draws nothing.
    image_variations, text_variations:
        How many versions of each clip (crop, flip, window) and of each caption are cached.
    balancing, balancing_strategy:
        ``REPEATS``: each epoch uses every clip so many times; ``SAMPLES``: each epoch uses so many clips.
    loss_weight:
        Factor of the loss of its clips; 0 or more.
    """

    name: str
    path: str
    seed: int
    enabled: bool = True
    type: str = "STANDARD"
    include_subdirectories: bool = False
    image_variations: int = 1
    text_variations: int = 1
    balancing: float = 1.0
    balancing_strategy: str = "REPEATS"
    loss_weight: float = 1.0
    image: ConceptImage = ConceptImage()
    text: ConceptText = ConceptText()

    def to_dict(self) -> dict[str, Any]:
        """The nested dict that the pipeline modules read (``concept.image.enable_random_flip``)."""
        return asdict(self)


def read_concepts(
    source: Path | list[Any],
    *,
    file: Path,
    folders: Sequence[Path],
    notes: list[FieldNote],
    cache: Path,
    kinds: Sequence[str] = ("STANDARD",),
) -> tuple[Concept, ...]:
    """Read concepts from a concept file, or from the list that a preset holds.

    Parameters
    ----------
    source:
        The concept file, or the preset's ``concepts``.
    file:
        The file that is named in messages about an inline list: the preset.
    folders:
        Where relative paths are looked up, in this order.
    notes:
        Where notes on fields that are ignored or unknown are added.
    cache:
        The folder of the caches: with one that was carried here a concept's files may be missing.
    kinds:
        The types of concepts that are asked for.

    Returns
    -------
    The enabled concepts of these types: of STANDARD alone, those that are trained.

    Raises
    ------
    UserError
        If the file or a concept cannot be used, or there is no concept to train.
    """
    if isinstance(source, Path):
        data, file = read_json(source, "concept file"), source
        folders = (source.parent, *folders)
        prefix = ""
    else:
        data, prefix = source, "concepts"
    sources = _Sources(folders, cache)
    if not isinstance(data, list):
        raise UserError(
            "concepts cannot be used", path=file, reason="they are not a list", fix="put the concepts in brackets [ ]"
        )
    concepts = [
        concept
        for position, entry in enumerate(data)
        if (concept := _read_concept(entry, position, f"{prefix}[{position}].", file, sources, notes, kinds))
    ]
    if not concepts:
        raise UserError(
            "there is nothing to train on",
            path=file,
            reason=f"of {len(data)} concepts none is enabled and of type {' or '.join(kinds)}"
            if data
            else "it has no concept",
            fix="add a concept with the folder of your clips, or enable one",
        )
    return tuple(concepts)


def _read_concept(
    entry: Any,
    position: int,
    prefix: str,
    file: Path,
    sources: _Sources,
    notes: list[FieldNote],
    kinds: Sequence[str],
) -> Concept | None:
    entry = migrate_concept(entry) if isinstance(entry, dict) else entry
    found: list[FieldNote] = []
    reader = FieldReader(entry, CONCEPT, file=file, prefix=prefix, notes=found)
    if not reader.boolean("enabled"):
        return None
    kind = reader.choice("type", ("STANDARD", "VALIDATION", "PRIOR_PREDICTION"))
    if kind == "VALIDATION" and kind not in kinds:
        notes.append(FieldNote(f"{prefix}type", "VALIDATION", "ignored", "the concept is not trained, nor validated"))
        return None
    if kind not in kinds:
        raise as_limit(
            reader.wrong(
                "type",
                "STANDARD",
                "prior preservation is not done here: disable the concept or set its type to STANDARD",
            )
        )
    reader.sweep()
    concept = Concept(
        name=reader.text("name"),
        path=str(sources.folder(reader)),
        type=kind,
        seed=reader.integer("seed") if reader.value("seed") is not None else position,
        include_subdirectories=reader.boolean("include_subdirectories"),
        image_variations=reader.integer("image_variations", minimum=1),
        text_variations=reader.integer("text_variations", minimum=1),
        balancing=reader.number("balancing", minimum=0),
        balancing_strategy=reader.choice("balancing_strategy", BALANCING_STRATEGIES),
        loss_weight=reader.number("loss_weight", minimum=0),
        image=_read_image(reader.section("image", CONCEPT_IMAGE)),
        text=_read_text(reader.section("text", CONCEPT_TEXT), sources),
    )
    notes += found
    return replace(concept, name=concept.name or Path(concept.path).name)


class _Sources:
    """Where the files of concepts are looked up, and whether they have to be there.

    Parameters
    ----------
    folders:
        For relative paths, in this order.
    cache:
        Of the caches. One that was carried here may have all that is needed.
    """

    def __init__(self, folders: Sequence[Path], cache: Path) -> None:
        self._folders = folders
        self._cache = cache

    def folder(self, reader: FieldReader) -> Path:
        text = reader.text("path")
        if not text:
            raise reader.wrong("path", "a folder", "name the folder of your clips")
        folder = self._found(reader, "path", "concept folder", text)
        if folder.is_file():
            raise UserError(
                "concept folder cannot be used",
                path=folder,
                reason=f'"{reader.prefix}path" in {reader.file} names a file',
                fix=f"name the folder: {folder.parent}",
            )
        return folder

    def prompt_file(self, reader: FieldReader) -> Path:
        return self._found(reader, "prompt_path", "prompt file", reader.text("prompt_path"))

    def _found(self, reader: FieldReader, name: str, what: str, text: str) -> Path:
        path = resolve_input(text, self._folders)
        if not path.exists():
            if not was_carried(self._cache):
                raise missing_path(path, what, f'"{reader.prefix}{name}" in {reader.file}')
            reader.note(name, "adjusted", f"the {what} does not exist: training takes what the imported cache holds")
        return path


def _read_image(reader: FieldReader) -> ConceptImage:
    reader.sweep()
    image = ConceptImage(
        enable_crop_jitter=reader.boolean("enable_crop_jitter"),
        enable_random_flip=reader.boolean("enable_random_flip"),
        enable_fixed_flip=reader.boolean("enable_fixed_flip"),
        enable_resolution_override=reader.boolean("enable_resolution_override"),
        resolution_override=reader.text("resolution_override").strip(),
    )
    fault = check_resolution(image.resolution_override)
    if fault is None:
        return image
    if image.enable_resolution_override:
        raise reader.error(f"{reader.prefix}resolution_override", fault, 'write it like "512" or "832x480"')
    return replace(image, resolution_override="512")  # bucketing reads it even where it is not enabled


def _read_text(reader: FieldReader, sources: _Sources) -> ConceptText:
    reader.sweep()
    source = reader.choice("prompt_source", PROMPT_SOURCES)
    prompt_path = reader.text("prompt_path")
    if source == "concept":
        if not prompt_path:
            raise reader.wrong("prompt_path", "a text file", "name the file of prompts, or set prompt_source to sample")
        prompt_path = str(sources.prompt_file(reader))
    return ConceptText(
        prompt_source=source,
        prompt_path=prompt_path,
        enable_tag_shuffling=reader.boolean("enable_tag_shuffling"),
        tag_delimiter=reader.text("tag_delimiter") or ",",
        keep_tags_count=reader.integer("keep_tags_count", minimum=0),
    )
