"""Whether a configuration can be trained, before anything is loaded, for either host. Never imports torch."""

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
