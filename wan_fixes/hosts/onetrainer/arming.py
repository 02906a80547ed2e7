"""Arms the patches for the checkout that is being imported, if it is enabled and the settings say so."""

from __future__ import annotations

import logging
import sys
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from wan_fixes import __version__
from wan_fixes.hosts.onetrainer.import_hooks import arm
from wan_fixes.hosts.onetrainer.state import enabled_checkouts
from wan_fixes.settings import Settings

_CONFIGURATION_OPTIONS = ("--config-path", "--preset-path")

logger = logging.getLogger("wan_fixes")


def arm_checkout(locations: list[str]) -> bool:
    """Whether the package `modules` at these folders belongs to an enabled checkout; if so, its patches are armed.

    With ``Settings.enabled`` off the window gets the tab with the switch, and nothing else is changed; a script that
    was given a configuration for WAN is told what stock makes of it. Raises ``UserError`` when a file of ours cannot
    be read.
    """
    folders = {Path(location).resolve() for location in locations}
    checkouts = [Path(entry.path) for entry in enabled_checkouts()]
    checkout = next((path for path in checkouts if path / "modules" in folders), None)
    if checkout is None:
        return False
    _show_log()
    if not Settings.load().enabled:
        from wan_fixes.hosts.onetrainer.patches import switched_off

        arm(switched_off.PATCHES, checkout)
        for option, value in pairwise(sys.argv):
            if option in _CONFIGURATION_OPTIONS:
                switched_off.warn_of_wan(value)
    else:
        from wan_fixes.hosts.onetrainer.touch_points import PATCHES

        arm(PATCHES, checkout)
        logger.info("version %s is active in %s", __version__, checkout)
    return True


def _show_log() -> None:
    """Show our log on standard error where nobody else does: OneTrainer sets up no logging."""
    if not logger.hasHandlers():
        handler = _BarFriendlyHandler()
        handler.setFormatter(logging.Formatter("[wan-fixes] %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # a fork sets up logging as it is imported: every line would come twice


class _BarFriendlyHandler(logging.Handler):
    """Standard error, above OneTrainer's progress bars instead of through them."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
