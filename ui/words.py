"""Numbers and names as people read them in a window."""

from __future__ import annotations

import re
from typing import Final

from wan_fixes.health import plain

LINE_LIMIT: Final = 300
"""Characters of a text in a table or a line; what is longer is read in full where it is chosen."""

NOTHING: Final = "\N{EN DASH}"
"""Where there is no value."""

_STAGES: Final = {
    "ValidatedCollectPaths": "Finding files",
    "ValidatedCaptionLoader": "Reading captions",
    "ValidatedImageLoader": "Reading pictures",
    "RobustVideoLoader": "Reading clips",
    "SafeVideoFrameSampler": "Choosing frames",
    "MeasuredAspect": "Measuring clips",
    "AspectBucketing": "Choosing sizes",
    "SafeScaleCrop": "Reading and scaling clips",
    "ScaleCropImage": "Scaling",
    "ScaleImage": "Scaling",
    "RandomFlip": "Flipping",
    "RandomCircularMaskShrink": "Masks",
    "RobustTemporalVAE": "Encoding clips",
    "EncodeVAE": "Encoding pictures",
    "Tokenize": "Captions to tokens",
    "EncodeT5Text": "Encoding captions",
    "EncodeUMT5Text": "Encoding captions",
    "EncodeWanText": "Encoding captions",
    "SampleVAEDistribution": "Drawing latents",
    "media": "Reading files",
    "EncodeClipText": "Encoding captions",
    "SelectRandomText": "Choosing captions",
    "ValidatedDiskCache": "Reading the cache",
    "SafeVariationSorting": "Ordering samples",
    "SafeAspectBatchSorting": "Making batches",
    "SafeInlineAspectBatchSorting": "Making batches",
    "AspectBatchSorting": "Making batches",
}
_RUN_STATES: Final = {"finished": "Finished", "interrupted": "Interrupted", "failed": "Failed"}
_RUN_KINDS: Final = {"train": "training", "check": "check", "cache": "caching", "models": "model files"}
_SAMPLE_STATES: Final = {"skipped": "left out", "failed": "failed", "warning": "warning", "valid": "fine"}


def time_text(seconds: float) -> str:
    """Seconds as "8 s", "2 min 5 s", "3 h 20 min" or "2 d 4 h"."""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def short_time_text(seconds: float) -> str:
    """The time that one item takes: "0.4 ms", "35 ms", "1.2 s", or as `time_text`."""
    if seconds < 0.001:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else time_text(seconds)


def count_text(count: int) -> str:
    """A whole number with its thousands apart."""
    return f"{count:,}"


def many(count: int, one: str, several: str = "") -> str:
    """A count with its noun: "1 sample", "1,200 samples"."""
    return f"{count_text(count)} {one if count == 1 else several or one + 's'}"


def rate_text(per_second: float, unit: str) -> str:
    """A speed in the unit in which it is a handy number: "3.2 steps/s", "12 steps/min", "4 steps/h"."""
    for factor, name in ((1, "s"), (60, "min"), (3600, "h")):
        value = per_second * factor
        if value >= 1 or name == "h":
            return f"{value:.1f} {unit}/{name}" if value < 100 else f"{value:,.0f} {unit}/{name}"
    raise AssertionError("unreachable")


def memory_text(mebibytes: float) -> str:
    """Memory (of 1024² bytes each) as "740 MB" or "12.4 GB"."""
    return f"{mebibytes:.0f} MB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GB"


def stage_name(module: str) -> str:
    """What a module of the pipeline does, in words; its own name, taken apart, where there are none."""
    return _STAGES.get(module) or sentence(_apart(line(module)))


def run_state(state: str) -> str:
    """How a run stands that is not running."""
    return _RUN_STATES.get(state) or line(state)


def run_kind(kind: str) -> str:
    """What is run."""
    return _RUN_KINDS.get(kind) or line(kind)


def kind_name(kind: str) -> str:
    """A kind of error in words: "DecodeTimeoutError" as "decode timeout"."""
    words = _apart(line(kind))
    return words.removesuffix(" error") or words


def _apart(name: str) -> str:
    """ "RandomHue" as "random hue"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()


def sample_state(status: str) -> str:
    """What became of a sample."""
    return _SAMPLE_STATES.get(status) or line(status)


def line(text: object) -> str:
    """A text from a user or a file as one safe line."""
    return plain(text, limit=LINE_LIMIT)


def short(text: object) -> str:
    """The same for a cell of a table: what is too long just ends, since it can be read where the row is chosen."""
    safe = plain(text, limit=LINE_LIMIT + 1)
    return safe if len(safe) <= LINE_LIMIT else f"{safe[: LINE_LIMIT - 1]}…"


def sentence(text: object) -> str:
    """The same with a capital at its beginning."""
    safe = line(text)
    return safe[:1].upper() + safe[1:]
