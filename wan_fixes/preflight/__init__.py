"""Whether a configuration can be trained, before anything is loaded, for either host. Never imports torch.

Names are imported on first use, so that who only looks for a path near another does not import the models' room.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wan_fixes.preflight.check import check_config, errors_in, refusal, warnings_in
    from wan_fixes.preflight.correct import corrected, corrections_in, keeping_paths
    from wan_fixes.preflight.finding import ConfigFinding, Correction

__all__ = [
    "ConfigFinding",
    "Correction",
    "check_config",
    "corrected",
    "corrections_in",
    "errors_in",
    "keeping_paths",
    "refusal",
    "warnings_in",
]

_HOMES = {
    "ConfigFinding": "finding",
    "Correction": "finding",
    "check_config": "check",
    "corrected": "correct",
    "corrections_in": "correct",
    "errors_in": "check",
    "keeping_paths": "correct",
    "refusal": "check",
    "warnings_in": "check",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
