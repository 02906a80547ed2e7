"""Decides where the pipeline's base types come from: the real mgds when it is there, else our own engine.

Everything in this package subclasses what this module exports, never an engine directly. `ENGINE` says which it is.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

logger = logging.getLogger(__name__)

ENGINE_VARIABLE = "WAN_FIXES_ENGINE"
"""Environment variable: "standalone" takes our engine even where mgds is installed."""

MGDS_HOMES = {
    "MGDS": "mgds.MGDS",
    "TrainDataLoader": "mgds.MGDS",
    "LoadingPipeline": "mgds.LoadingPipeline",
    "PipelineModule": "mgds.PipelineModule",
    "PipelineState": "mgds.PipelineModule",
    "RandomAccessPipelineModule": "mgds.pipelineModuleTypes.RandomAccessPipelineModule",
    "SerialPipelineModule": "mgds.pipelineModuleTypes.SerialPipelineModule",
    "SingleVariationRandomAccessPipelineModule": ("mgds.pipelineModuleTypes.SingleVariationRandomAccessPipelineModule"),
    "ConceptPipelineModule": "mgds.ConceptPipelineModule",
    "SettingsPipelineModule": "mgds.SettingsPipelineModule",
    "OutputPipelineModule": "mgds.OutputPipelineModule",
    "DiskCache": "mgds.pipelineModules.DiskCache",
}
"""Where mgds keeps each of the names that we use."""


def import_mgds() -> dict[str, Any]:
    """The real classes by name. Raises ImportError, or whatever a broken mgds raises while it is imported."""
    importlib.import_module("mgds")  # on its own, so that its absence is told from a part of it missing
    return {name: getattr(importlib.import_module(home), name) for name, home in MGDS_HOMES.items()}


def _choose_mgds() -> dict[str, Any] | None:
    """The real classes, or None where our engine is to be used. All or nothing: the two must never mix."""
    choice = os.environ.get(ENGINE_VARIABLE, "")
    if choice == "standalone":
        return None
    if choice not in ("", "mgds"):
        logger.warning('%s=%r is not known: leave it out, or set it to "standalone".', ENGINE_VARIABLE, choice)
    try:
        return import_mgds()
    except Exception as error:  # noqa: BLE001 (a broken installation may raise anything; it is logged here)
        if not (isinstance(error, ModuleNotFoundError) and error.name == "mgds"):
            logger.warning(
                "mgds is installed but cannot be imported, so the standalone engine is used: %s: %s "
                "(reinstall mgds, or set %s=standalone to use this engine without the warning)",
                type(error).__name__,
                error,
                ENGINE_VARIABLE,
            )
        return None


_mgds = _choose_mgds()

if TYPE_CHECKING or _mgds is None:
    from wan_fixes.engine import (
        MGDS,
        ConceptPipelineModule,
        DiskCache,
        LoadingPipeline,
        OutputPipelineModule,
        PipelineModule,
        PipelineState,
        RandomAccessPipelineModule,
        SerialPipelineModule,
        SettingsPipelineModule,
        SingleVariationRandomAccessPipelineModule,
        TrainDataLoader,
    )

    ENGINE = "standalone"
else:
    globals().update(_mgds)
    ENGINE = "mgds"

__all__ = [
    "ENGINE",
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
