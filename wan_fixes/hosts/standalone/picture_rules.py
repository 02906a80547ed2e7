"""How well a picture suits the sizes that a preset trains it at: one rule for each way in which it may not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from wan_fixes.hosts.standalone.bucket_sizes import ASPECTS, Size, buckets_of, covering_size, quantize
from wan_fixes.hosts.standalone.concepts import Concept
from wan_fixes.hosts.standalone.dataset import Wanted

#: So much larger does a picture become without a word: a bucket's sides are rounded, and nobody sees it.
_MOST_ENLARGEMENT: Final = 1.1
#: Such a share of a picture may be cut away without a word: more is seen in what the model learns to frame.
_MOST_CUT_OFF: Final = 0.2


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says of a picture.

    Attributes
    ----------
    rule:
        Its name in `RULES`.
    """

    rule: str
    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class Placement:
    """A picture and the bucket that it is scaled and cropped to.

    Attributes
    ----------
    size, bucket:
        Height and width, of square pixels as shown and as trained.
    resolution:
        That of the preset or of the concept: ``512``, ``512, 768`` or ``832x480``.
    squares_only:
        Aspect ratio bucketing is switched off.
    quantization:
        What the sides of a bucket are multiples of.
    """

    size: Size
    bucket: Size
    resolution: str
    squares_only: bool
    quantization: int

    @property
    def enlargement(self) -> float:
        """The factor by which the picture grows in length; below 1 it shrinks."""
        return max(target / own for target, own in zip(self.bucket, self.size, strict=True))

    @property
    def cut_off(self) -> float:
        """The share of the picture's area that lies outside of the bucket."""
        return 1 - math.prod(self.bucket) / (math.prod(self.size) * self.enlargement**2)


def placements(wanted: Wanted, concept: Concept, width: int, height: int) -> tuple[Placement, ...]:
    """One for each resolution that is wanted, or that the concept names in its place."""
    own = concept.image
    resolution = own.resolution_override if own.enable_resolution_override else wanted.resolution
    squares, multiple = not wanted.aspect_ratio_bucketing, wanted.spatial_multiple
    sizes = buckets_of(height / width, resolution, multiple, squares_only=squares)
    return tuple(Placement((height, width), size, resolution, squares, multiple) for size in sizes)


def findings(placed: tuple[Placement, ...]) -> Iterator[Finding]:
    """What the rules say of a picture, each once: of the largest bucket that it speaks of."""
    largest_first = sorted(placed, key=lambda placement: math.prod(placement.bucket), reverse=True)
    for name, rule in RULES.items():
        said = next(filter(None, map(rule, largest_first)), None)
        if said is not None:
            yield Finding(name, *said)


def _too_small(placement: Placement) -> tuple[str, str] | None:
    if placement.enlargement <= _MOST_ENLARGEMENT:
        return None
    scaled = covering_size(placement.size, placement.bucket)
    cropped = "" if scaled == placement.bucket else f", of which {_text(placement.bucket)} is used"
    return (
        f"{_text(placement.size)} is enlarged {placement.enlargement:.2g} times to {_text(scaled)}{cropped}",
        "lower the resolution, or use a larger source",
    )


def _wrong_aspect(placement: Placement) -> tuple[str, str] | None:
    if placement.cut_off <= _MOST_CUT_OFF:
        return None
    height, width = covering_size(placement.size, placement.bucket)
    sides = "left and right" if width - placement.bucket[1] > height - placement.bucket[0] else "at the top and bottom"
    share = round(100 * placement.cut_off)
    return (
        f"{share} % of its picture is cut off {sides}: {_text(placement.size)} is trained at {_text(placement.bucket)}",
        f"{_better_bucket(placement)}crop it yourself",
    )


def _better_bucket(placement: Placement) -> str:
    """What in the preset would keep more of the picture, before other advice."""
    if "x" in placement.resolution:
        side = quantize(math.sqrt(math.prod(placement.bucket)), placement.quantization)
        return f'write the resolution as "{side}", with aspect ratio bucketing on, or '
    if placement.squares_only:
        return "switch aspect ratio bucketing on, or "
    if max(placement.size) / min(placement.size) > max(ASPECTS):
        return f"no bucket is longer than {max(ASPECTS):g} to 1: "
    return "raise the resolution, which makes buckets of more shapes, or "


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


#: Name -> what it says of a picture and what helps, or None where there is nothing to say.
RULES: Final[Mapping[str, Callable[[Placement], tuple[str, str] | None]]] = {
    "too_small": _too_small,
    "wrong_aspect": _wrong_aspect,
}
