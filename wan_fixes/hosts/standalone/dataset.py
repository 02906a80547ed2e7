"""What a training takes of its files, as a verdict on them needs it: of a preset, or of any configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from wan_fixes.hosts.standalone.concepts import Concept, read_concepts
from wan_fixes.hosts.standalone.migrations import migrate_train_config
from wan_fixes.hosts.standalone.onetrainer_fields import TRAIN
from wan_fixes.hosts.standalone.reading import FieldNote, FieldReader, missing_path, resolve_input
from wan_fixes.preflight.resolution import check_resolution
from wan_fixes.wan.variants import VARIANTS

_UNKNOWN_MULTIPLE: Final = 16  # pixels; of other models some take more, and round what they train at more coarsely
_WINDOW: Final = Path("the configuration")  # stands where messages name a file


class Wanted(Protocol):
    """What is wanted of files: a `Preset`, or a `Dataset`."""

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """Whose files they are."""

    @property
    def frames(self) -> int:
        """Frames of a sample of a clip."""

    @property
    def fps(self) -> float | None:
        """Frames per second of a sample; None for the clip's own."""

    @property
    def resolution(self) -> str:
        """As OneTrainer writes it."""

    @property
    def aspect_ratio_bucketing(self) -> bool:
        """Whether pictures keep their shape, more or less."""

    @property
    def spatial_multiple(self) -> int:
        """Width and height in pixels are multiples of this."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a configuration of any model type wants of files; see `Wanted`.

    Attributes
    ----------
    model_type:
        OneTrainer's. Of what is no WAN model, any clip with a frame will do.
    """

    model_type: str
    concepts: tuple[Concept, ...]
    frames: int
    fps: float | None
    resolution: str
    aspect_ratio_bucketing: bool
    spatial_multiple: int


def read_dataset(config: Mapping[str, Any], folder: Path) -> Dataset:
    """Read it from a configuration as plain JSON, as `TrainConfig.to_dict()` gives it; the rest may be wrong.

    Parameters
    ----------
    folder:
        The working folder of the training, for relative paths.

    Raises
    ------
    UserError
        If a field that counts here cannot be used, a folder of clips does not exist, or there is no concept.
    """
    reader = FieldReader(migrate_train_config(dict(config)), TRAIN, file=_WINDOW, notes=[])
    variant = VARIANTS.get(str(config.get("model_type")))
    resolution = reader.text("resolution").strip()
    fault = check_resolution(resolution)
    if fault is not None:
        raise reader.error("resolution", f'"{resolution}": {fault}', 'write it like "512" or "832x480"')
    return Dataset(
        model_type=str(config.get("model_type") or ""),
        concepts=_concepts(reader, folder),
        frames=1 if variant is None else reader.integer("frames", minimum=1),
        fps=None if variant is None else variant.fps,
        resolution=resolution,
        aspect_ratio_bucketing=reader.boolean("aspect_ratio_bucketing"),
        spatial_multiple=_UNKNOWN_MULTIPLE if variant is None else variant.spatial_multiple,
    )


def _concepts(reader: FieldReader, folder: Path) -> tuple[Concept, ...]:
    """All that files are read of: with prior preservation and validation, where these are switched on."""
    inline: list[Any] | None = reader.value("concepts")
    source: Path | list[Any]
    if inline is not None:
        source = inline
    else:
        text = reader.text("concept_file_name")
        if not text:
            raise reader.wrong("concept_file_name", "a JSON file", "name your concept file, or give concepts inline")
        source = resolve_input(text, [folder])
        if not source.exists():
            raise missing_path(source, "concept file", f"concept_file_name in {_WINDOW}")
    validates = ("VALIDATION",) if reader.data.get("validation") is True else ()
    cache, notes = folder / Path(reader.text("cache_dir")).expanduser(), list[FieldNote]()
    kinds = ("STANDARD", "PRIOR_PREDICTION", *validates)
    return read_concepts(source, file=_WINDOW, folders=[folder], notes=notes, cache=cache, kinds=kinds)
