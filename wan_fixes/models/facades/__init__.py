"""The room's classes under the names of older WAN projects: thin, with no logic of their own.

Those projects had a status for each model, `ModelStatus`; here that is `ModelState`, and `ModelStatus` says more:

| there | here |
|---|---|
| UNKNOWN | ModelError, `UNKNOWN_MODEL`: the manifest does not have it |
| MISSING | `NOT_PRESENT` |
| DOWNLOADING | `PARTIAL` while it is fetched first, `VERIFYING` while it is mended |
| AVAILABLE | `COMPLETE` |
| LOADED | `COMPLETE`, and `EnhancedModelManager.loaded_models` has it |
| CORRUPTED | `CORRUPT` |
| ERROR | ModelError, whose code says why |
"""

from wan_fixes.models.compatibility import CompatibilityCheck, ModelCompatibility
from wan_fixes.models.facades.enhanced_manager import EnhancedModelManager
from wan_fixes.models.facades.integration import (
    ensure_wan_model_weights,
    get_wan_model_weight_status,
    get_wan_weight_manager,
)
from wan_fixes.models.facades.loading import ModelLoadingResult
from wan_fixes.models.facades.metadata import ModelMetadata
from wan_fixes.models.facades.registry import ModelRegistry
from wan_fixes.models.facades.updater import ModelVersion, WANModelUpdater
from wan_fixes.models.facades.weight_manager import CleanupStats, WANWeightManager
from wan_fixes.models.fallbacks import GenerationMode
from wan_fixes.models.versions import MigrationStrategy, UpdateInfo

__all__ = [
    "CleanupStats",
    "CompatibilityCheck",
    "EnhancedModelManager",
    "GenerationMode",
    "MigrationStrategy",
    "ModelCompatibility",
    "ModelLoadingResult",
    "ModelMetadata",
    "ModelRegistry",
    "ModelVersion",
    "UpdateInfo",
    "WANModelUpdater",
    "WANWeightManager",
    "ensure_wan_model_weights",
    "get_wan_model_weight_status",
    "get_wan_weight_manager",
]
