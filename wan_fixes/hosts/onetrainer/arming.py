"""Arms the patches for the checkout that is being imported, if it is enabled and the settings say so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from wan_fixes import __version__
from wan_fixes.hosts.onetrainer.state import EnabledCheckout, enabled_checkouts
from wan_fixes.settings import Settings

_LAUNCHER = "scripts/train.py"
_CONFIGURATION_OPTIONS = ("--config-path", "--preset-path")

logger = logging.getLogger("wan_fixes")


def arm_checkout(locations: list[str]) -> bool:
    """Whether the package `modules` at these folders belongs to a checkout of ours; if so, its patches are armed.

    Of one that was enabled in another place, it is said that the plugin is off.
    With ``Settings.enabled`` off the window gets the tab with the switch, and nothing else is changed; a script that
    was given a configuration for WAN is told what stock makes of it. Raises ``UserError`` when a file of ours cannot
    be read.
    """
    folders = [Path(location).resolve() for location in locations]
    entries = enabled_checkouts()
    checkouts = [Path(entry.path).resolve() for entry in entries]
    checkout = next((path for path in checkouts if path / "modules" in folders), None)
    if checkout is None:
        return any(_say_if_moved(folder.parent, entries) for folder in folders)
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


def _say_if_moved(checkout: Path, entries: list[EnabledCheckout]) -> bool:
    """Whether `checkout` is a OneTrainer in the environment of one whose folder is gone; if so, say what to do."""
    if not (checkout / _LAUNCHER).is_file():  # other programs have a package `modules` too
        return False
    paths = {Path(path).resolve() for path in sys.path}
    for entry in entries:
        moved = entry.as_moved_to(checkout)
        if moved is not None and Path(moved.pth).is_file() and Path(moved.pth).parent.resolve() in paths:
            _show_log()
            logger.warning(
                'the plugin is off: it was enabled for %s, which is gone; if it was moved: run `wan enable "%s"`',
                entry.path,
                checkout,
            )
            return True
    return False


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
