"""What is left of the plugin where it is switched off: the tab with its switch, and a word on WAN, which needs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patches import window
from wan_fixes.hosts.onetrainer.patching import Patch, shielded, wrap
from wan_fixes.wan.variants import VARIANTS

logger = logging.getLogger(__name__)


def warn_of_wan(path: str) -> None:
    """Say what stock OneTrainer makes of a configuration, if that names one of WAN's model types."""
    model_type = _model_type_in(path)
    if model_type in VARIANTS:
        logger.warning(
            "the plugin is switched off in its settings: "
            "without it there is no %s, and OneTrainer goes on as Stable Diffusion 1.5",
            model_type,
        )


def _model_type_in(path: str) -> str | None:
    """The model type that a configuration names, if it does: what is wrong with it, OneTrainer says itself."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    model_type = content.get("model_type") if isinstance(content, dict) else None
    return model_type if isinstance(model_type, str) else None


def _watch_configurations(module: ModuleType) -> None:
    def around(stock: Callable[..., Any]) -> Callable[..., Any]:
        def load_config_from_file(self: Any, filename: str) -> Any:
            shielded(warn_of_wan, filename)
            return stock(self, filename)

        return load_config_from_file

    wrap(module.TopBarController, "load_config_from_file", around)


PATCHES: tuple[Patch, ...] = (
    *window.PATCHES,
    Patch(
        name="wan while switched off",
        module="modules.ui.TopBarController",
        needs=("TopBarController.load_config_from_file",),
        apply=_watch_configurations,
        why="warning where a configuration for WAN is loaded while the plugin is switched off",
    ),
)
