"""Sample definitions: the clips to make with the trained LoRA, in OneTrainer's JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.onetrainer_fields import SAMPLE
from wan_fixes.hosts.standalone.reading import FieldNote, FieldReader, read_json
from wan_fixes.wan.variants import WanVariant


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDefinition:
    """One clip to make.

    Attributes
    ----------
    width, height:
        Pixels; None: the size of the clips that were trained on.
    frames:
        4n + 1; None: as many as were trained on.
    cfg_scale:
        Guidance; 1 is none.
    """

    prompt: str = ""
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    seed: int = 42
    diffusion_steps: int = 30
    cfg_scale: float = 5.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def read_samples(
    source: Path | list[Any], *, file: Path, variant: WanVariant, notes: list[FieldNote]
) -> tuple[SampleDefinition, ...]:
    """The enabled sample definitions of a file, or of the list that the preset `file` holds. Raises ``UserError``."""
    if isinstance(source, Path):
        data, file = read_json(source, "sample definitions"), source
        prefix = ""
    else:
        data, prefix = source, "samples"
    if not isinstance(data, list):
        raise UserError(
            "sample definitions cannot be used", path=file, reason="they are not a list", fix="put them in brackets [ ]"
        )
    samples = []
    for position, entry in enumerate(data):
        reader = FieldReader(entry, SAMPLE, file=file, prefix=f"{prefix}[{position}].", notes=notes)
        if reader.boolean("enabled"):
            samples.append(_read_sample(reader, variant))
    return tuple(samples)


def _read_sample(reader: FieldReader, variant: WanVariant) -> SampleDefinition:
    reader.sweep()
    fallback = SampleDefinition()
    given = reader.given
    frames = reader.integer("frames", minimum=1) if given("frames") else None
    if frames is not None and (frames - 1) % variant.temporal_compression:
        frames = max(1, (frames - 1) // variant.temporal_compression * variant.temporal_compression + 1)
        reader.note("frames", "adjusted", f"WAN makes 4n + 1 frames: {frames} are made")
    return SampleDefinition(
        prompt=reader.text("prompt"),
        negative_prompt=reader.text("negative_prompt"),
        width=_size(reader, "width", variant) if given("width") else None,
        height=_size(reader, "height", variant) if given("height") else None,
        frames=frames,
        seed=reader.integer("seed"),
        diffusion_steps=reader.integer("diffusion_steps", minimum=1),
        cfg_scale=reader.number("cfg_scale", minimum=0) if given("cfg_scale") else fallback.cfg_scale,
    )


def _size(reader: FieldReader, name: str, variant: WanVariant) -> int:
    size = reader.integer(name, minimum=1)
    multiple = variant.spatial_multiple
    fitting = max(multiple, round(size / multiple) * multiple)
    if fitting != size:
        reader.note(name, "adjusted", f"WAN makes multiples of {multiple}: {fitting} is made")
    return fitting
