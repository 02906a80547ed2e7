"""A pipeline engine with MGDS's semantics, for machines without mgds.

Written from MGDS's behaviour, which `tests/engine` pins on both. Names, signatures, seeds and order of calls are the
same, so that a module cannot tell which engine runs it.
"""

from wan_fixes.engine.dataset import MGDS, TrainDataLoader
from wan_fixes.engine.disk_cache import DiskCache
from wan_fixes.engine.kinds import (
    RandomAccessPipelineModule,
    SerialPipelineModule,
    SingleVariationRandomAccessPipelineModule,
)
from wan_fixes.engine.loading import LoadingPipeline
from wan_fixes.engine.module import PipelineModule, PipelineState
from wan_fixes.engine.output import OutputPipelineModule
from wan_fixes.engine.sources import ConceptPipelineModule, SettingsPipelineModule

__all__ = [
    "MGDS",
    "ConceptPipelineModule",
    "DiskCache",
    "LoadingPipeline",
    "OutputPipelineModule",
    "PipelineModule",
    "PipelineState",
    "RandomAccessPipelineModule",
    "SerialPipelineModule",
    "SettingsPipelineModule",
    "SingleVariationRandomAccessPipelineModule",
    "TrainDataLoader",
]
