"""The room of model files: present, complete and genuine, before anything is loaded. Never imports torch."""

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import FetchOptions, Progress
from wan_fixes.models.installed import ModelState, ModelStatus
from wan_fixes.models.layout import ModelResolver, models_root
from wan_fixes.models.locks import LockManager
from wan_fixes.models.manifest import Manifest, load_manifest
from wan_fixes.models.names import ModelName, parse_name
from wan_fixes.models.spec import FileSpec, ModelSpec

__all__ = [
    "ErrorCode",
    "FetchOptions",
    "FileSpec",
    "LockManager",
    "Manifest",
    "ModelEnsurer",
    "ModelError",
    "ModelName",
    "ModelResolver",
    "ModelSpec",
    "ModelState",
    "ModelStatus",
    "Progress",
    "load_manifest",
    "models_root",
    "parse_name",
]
