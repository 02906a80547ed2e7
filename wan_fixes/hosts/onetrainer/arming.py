"""Arms the patches for the checkout that is being imported, if it is enabled and the settings say so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from wan_fixes import __version__
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
    # What either way needs is imported there: with the plugin switched off a start should cost next to nothing.
    if Settings.load().enabled:
        from wan_fixes.hosts.onetrainer.import_hooks import arm
        from wan_fixes.hosts.onetrainer.touch_points import PATCHES

        arm(PATCHES, checkout)
        logger.info("version %s is active in %s", __version__, checkout)
    else:
        from wan_fixes.hosts.onetrainer.wan_warning import warn_of_wan
        from wan_fixes.hosts.onetrainer.window_watch import watch_for_window

        watch_for_window(checkout)
        for path in _configurations(sys.argv[1:]):
            warn_of_wan(path)
    return True


def _configurations(arguments: list[str]) -> Iterator[str]:
    """The configurations that the arguments name, in one word or two, as argparse takes them: options may be cut."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, is_one_word, value = argument.partition("=")
        if len(name) > len("--") and any(option.startswith(name) for option in _CONFIGURATION_OPTIONS):
            yield value if is_one_word else following


def _show_log() -> None:
    """Show our log on standard error where nobody else does: OneTrainer sets up no logging."""
    if not logger.hasHandlers():
        handler = _BarFriendlyHandler()
        handler.setFormatter(logging.Formatter("[wan-fixes] %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # a fork sets up logging as it is imported: every line would come twice


class _BarFriendlyHandler(logging.Handler):
    """Standard error, above OneTrainer's progress bars instead of through them; silent where there is none."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:  # tqdm would take standard output instead
            return
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except (OSError, ValueError):  # closed, or a pipe that nobody reads
            return
