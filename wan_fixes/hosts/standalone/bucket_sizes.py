"""The sizes of buckets, and which one a picture belongs into: pure numbers.

They are those of MGDS's AspectBucketing: nine aspect ratios and their inverses, each of the target's area, rounded to
what the model takes.
"""

from __future__ import annotations

import functools
import math

ASPECTS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Longer side by shorter side, of every bucket."""

Size = tuple[int, int]
"""Height and width in pixels."""


def buckets_of(aspect: float, resolution: str, quantization: int, *, squares_only: bool = False) -> tuple[Size, ...]:
    """The bucket for each target that `resolution` names, of a picture whose height by width is `aspect`.

    Parameters
    ----------
    resolution:
        ``512`` (an area of 512 x 512), ``512, 768`` (one of them is drawn for each sample), or ``832x480``.
    squares_only:
        One square bucket for each target: aspect ratio bucketing switched off.
    """
    if "x" in resolution:
        width, height = (int(part) for part in resolution.split("x"))
        return ((quantize(height, quantization), quantize(width, quantization)),)
    sides = [int(part) for part in resolution.split(",")]
    if squares_only:
        return tuple((quantize(side, quantization), quantize(side, quantization)) for side in sides)
    return tuple(nearest_bucket(aspect, bucket_sizes(side, quantization)) for side in sides)


@functools.lru_cache(maxsize=64)
def bucket_sizes(side: int, quantization: int) -> tuple[Size, ...]:
    """Every bucket for the area `side` x `side`, sorted."""
    sizes = set()
    for aspect in ASPECTS:
        shorter, longer = side / math.sqrt(aspect), side / math.sqrt(aspect) * aspect
        one, other = quantize(shorter, quantization), quantize(longer, quantization)
        sizes |= {(one, other), (other, one)}
    return tuple(sorted(sizes))


def nearest_bucket(aspect: float, sizes: tuple[Size, ...]) -> Size:
    """The bucket whose height by width comes closest to `aspect`."""
    return min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))


def covering_size(size: Size, target: Size) -> Size:
    """`size` scaled, its shape kept, until it just covers `target`."""
    (height, width), (target_height, target_width) = size, target
    if height / width > target_height / target_width:
        return max(target_height, round(height * target_width / width)), target_width
    return target_height, max(target_width, round(width * target_height / height))


def quantize(length: float, quantization: int) -> int:
    # at least one: a narrow bucket of a small target would otherwise have no pixels
    return max(1, round(length / quantization)) * quantization
