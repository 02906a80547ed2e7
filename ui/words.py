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
    "SelectInput": "Choosing captions",
    "ModifyPath": "Finding captions",
    "ShuffleTags": "Mixing tags",
    "EncodePrompt": "Encoding captions",
    "ImageToVideo": "Pictures as clips",
    "ValidatedDiskCache": "Reading the cache",
    "SafeVariationSorting": "Ordering samples",
    "SafeAspectBatchSorting": "Making batches",
    "SafeInlineAspectBatchSorting": "Making batches",
    "AspectBatchSorting": "Making batches",
}
_RUN_STATES: Final = {"finished": "Finished", "interrupted": "Interrupted", "failed": "Failed"}
_RUN_KINDS: Final = {"train": "training", "check": "check", "cache": "caching", "models": "model files"}
_SAMPLE_STATES: Final = {"skipped": "left out", "failed": "failed", "warning": "warning", "valid": "fine"}


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
