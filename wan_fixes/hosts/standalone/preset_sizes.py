"""How long and how large a sample is, as a preset says it."""

from __future__ import annotations

import re

from wan_fixes.hosts.standalone.reading import FieldReader
from wan_fixes.preflight.resolution import check_resolution
from wan_fixes.wan.variants import WanVariant


def read_resolution(reader: FieldReader, variant: WanVariant) -> str:
    """The resolution as it is written, with a note where the model takes other multiples. Raises ``UserError``."""
    resolution = reader.text("resolution").strip()
    fault = check_resolution(resolution)
    if fault is not None:
        raise reader.error("resolution", f'"{resolution}": {fault}', 'write it like "512" or "832x480"')
    if "x" in resolution and not reader.boolean("aspect_ratio_bucketing"):
        raise reader.error(
            "resolution",
            f"{resolution} is no square, and without aspect_ratio_bucketing clips are cropped to squares",
            'set "aspect_ratio_bucketing" to true',
        )
    multiple = variant.spatial_multiple
    if any(int(size) < multiple / 2 for size in re.split(r"\D+", resolution)):
        raise reader.error(
            "resolution", f'"{resolution}" is smaller than the {multiple} pixels that WAN needs', "make it larger"
        )
    fixed = [int(size) for size in resolution.split("x")] if "x" in resolution else []
    if any(size % multiple for size in fixed):
        width, height = (max(multiple, round(size / multiple) * multiple) for size in fixed)
        reason = f"WAN takes multiples of {multiple}: clips become {width}x{height}"
        reader.note("resolution", "adjusted", reason)
    return resolution


def read_frames(reader: FieldReader, variant: WanVariant) -> int:
    """A number of frames that the model takes. Raises ``UserError``."""
    frames = reader.integer("frames", minimum=1)
    step = variant.temporal_compression
    if (frames - 1) % step:
        below = (frames - 1) // step * step + 1
        raise reader.error(
            "frames",
            f"it is {frames}, and WAN takes {step}n + 1 frames: one, and then groups of {step}",
            f"set it to {below} or {below + step}",
        )
    return frames
