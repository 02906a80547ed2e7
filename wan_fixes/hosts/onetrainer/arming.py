"""Arms the patches for the checkout that is being imported, if it is enabled and the settings say so."""

from __future__ import annotations

import json
import logging
import sys
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from wan_fixes import __version__
from wan_fixes.hosts.onetrainer.import_hooks import arm
from wan_fixes.hosts.onetrainer.state import enabled_checkouts
from wan_fixes.settings import Settings
from wan_fixes.wan.variants import VARIANTS

logger = logging.getLogger("wan_fixes")


def arm_checkout(locations: list[str]) -> bool:
    """Whether the package `modules` at these folders belongs to an enabled checkout; if so, its patches are armed.

    With ``Settings.enabled`` off nothing is armed; a script that was given a configuration for WAN is told what
    stock makes of it. Raises ``UserError`` when a file of ours cannot be read.
    """
    folders = {Path(location).resolve() for location in locations}
    checkouts = [Path(entry.path) for entry in enabled_checkouts()]
    checkout = next((path for path in checkouts if path / "modules" in folders), None)
    if checkout is None:
        return False
    if not Settings.load().enabled:
        _warn_of_wan(sys.argv)
    else:
        from wan_fixes.hosts.onetrainer.touch_points import PATCHES

        _show_log()
        arm(PATCHES, checkout)
        logger.info("version %s is active in %s", __version__, checkout)
    return True


def _warn_of_wan(arguments: list[str]) -> None:
    for option, value in pairwise(arguments):
        model_type = _model_type_in(value) if option in ("--config-path", "--preset-path") else None
        if model_type in VARIANTS:
            _show_log()
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


def _show_log() -> None:
    """Show our log on standard error where nobody else does: OneTrainer sets up no logging."""
    if not logger.hasHandlers():
        handler = _BarFriendlyHandler()
        handler.setFormatter(logging.Formatter("[wan-fixes] %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class _BarFriendlyHandler(logging.Handler):
    """Standard error, above OneTrainer's progress bars instead of through them."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
