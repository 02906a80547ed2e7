"""What is left of the plugin where it is switched off: the tab with its switch, and a word on WAN, which needs it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patches import window
from wan_fixes.hosts.onetrainer.patching import Patch, shielded, wrap
from wan_fixes.hosts.onetrainer.wan_warning import warn_of_wan


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
"""Their modules are those of `window_watch`, which imports this file once one of them is looked for."""
