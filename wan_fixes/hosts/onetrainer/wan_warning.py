"""A word on configurations for WAN where the plugin is switched off. Imports next to nothing until there is one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

_PREFIX = "WAN_"  # every variant's name begins with it

logger = logging.getLogger(__name__)


def warn_of_wan(path: str) -> None:
    """Say what stock OneTrainer makes of a configuration, if that names one of WAN's model types."""
    model_type = _model_type_in(path)
    if not model_type.startswith(_PREFIX):
        return
    from wan_fixes.wan.variants import VARIANTS

    if model_type in VARIANTS:
        logger.warning(
            "the plugin is switched off in its settings: "
            "without it there is no %s, and OneTrainer goes on as Stable Diffusion 1.5",
            model_type,
        )


def _model_type_in(path: str) -> str:
    """The model type that a configuration names, if it does: what is wrong with it, OneTrainer says itself."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    model_type = content.get("model_type") if isinstance(content, dict) else None
    return model_type if isinstance(model_type, str) else ""
