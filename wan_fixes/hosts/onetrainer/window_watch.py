"""Waits for OneTrainer's window where the plugin is switched off: nothing of the tab is loaded for a script."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["WINDOW_MODULES", "watch_for_window"]

WINDOW_MODULES: Final = (
    "modules.ui.CtkTrainUIView",
    "modules.ui.PySide6TrainUIView",
    "modules.ui.TrainUI",
    "modules.ui.TopBarController",
)
"""The modules that `patches.switched_off` changes."""

logger = logging.getLogger(__name__)


def watch_for_window(checkout: Path) -> None:
    """Have what is left of a plugin that is switched off armed for `checkout`, when its window is imported."""
    watch = _WindowWatch(checkout)
    sys.meta_path.insert(0, watch)
    if any(name in sys.modules for name in WINDOW_MODULES):
        watch.arm()


class _WindowWatch:
    """A finder that steps aside for the patching one as soon as a module of the window is looked for."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - a finder's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in WINDOW_MODULES or not self.arm():
            return None
        # The finders are being gone through right now, and the new one has come in before the place that this is at.
        from importlib.util import find_spec

        return find_spec(fullname)

    def arm(self) -> bool:
        """Whether the patches are armed. Never raises: OneTrainer's import must go on."""
        try:
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            from wan_fixes.hosts.onetrainer.import_hooks import arm
            from wan_fixes.hosts.onetrainer.patches.switched_off import PATCHES

            arm(PATCHES, self._checkout)
        except (Exception, SystemExit) as error:
            logger.warning("OneTrainer's window is left as it is: %s: %s", type(error).__name__, error)
            logger.debug("where it happened", exc_info=True)
            return False
        return True
