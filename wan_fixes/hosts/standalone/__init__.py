"""The standalone host: trains from a OneTrainer preset where there is no OneTrainer. This page imports no torch."""

from __future__ import annotations

from wan_fixes.hosts.standalone.concepts import Concept, read_concepts
from wan_fixes.hosts.standalone.preset import OptimizerSettings, Preset
from wan_fixes.hosts.standalone.preset_reader import read_preset
from wan_fixes.hosts.standalone.reading import FieldNote
from wan_fixes.hosts.standalone.samples import SampleDefinition

__all__ = [
    "Concept",
    "FieldNote",
    "OptimizerSettings",
    "Preset",
    "SampleDefinition",
    "read_concepts",
    "read_preset",
]
