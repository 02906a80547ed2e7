"""The plain pipeline modules between the validated ones: prompts, buckets, mirroring, text and latents."""

from __future__ import annotations

from wan_fixes.hosts.standalone.modules.bucketing import AspectBucketing
from wan_fixes.hosts.standalone.modules.encode_text import EncodePrompt
from wan_fixes.hosts.standalone.modules.frames import ImageToVideo, RandomFlip
from wan_fixes.hosts.standalone.modules.latents import SampleVAEDistribution
from wan_fixes.hosts.standalone.modules.prompts import (
    GetFilename,
    ModifyPath,
    SelectInput,
    SelectRandomText,
    ShuffleTags,
)

__all__ = [
    "AspectBucketing",
    "EncodePrompt",
    "GetFilename",
    "ImageToVideo",
    "ModifyPath",
    "RandomFlip",
    "SampleVAEDistribution",
    "SelectInput",
    "SelectRandomText",
    "ShuffleTags",
]
