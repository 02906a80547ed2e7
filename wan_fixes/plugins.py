"""The plugin manager: our plugin, the installed ones, and `plugin.py` of the folders that the settings name.

Plugins by others are guests: one that cannot be loaded is logged by name and left out, and the rest go on.
Nothing is ever loaded from the working folder or a data folder, where a download could have put it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy

from wan_fixes import hookspecs
from wan_fixes.errors import WanFixesError
from wan_fixes.plugin import plugin as own_plugin
from wan_fixes.settings import Settings

__all__ = ["call_hooks", "copy_nested", "get_plugin_manager"]

logger = logging.getLogger(__name__)


def get_plugin_manager(settings: Settings) -> pluggy.PluginManager:
    """Return a manager with every usable plugin registered once, ours first.

    With ``settings.enabled`` off our own plugin is left out, and only those by others remain.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    if settings.enabled:
        manager.register(own_plugin, "wan_fixes")
    for entry_point in importlib.metadata.entry_points(group=hookspecs.PROJECT_NAME):
        _add(manager, f"{entry_point.name} = {entry_point.value}", entry_point.load)
    for folder in settings.plugin_folders:
        _add(manager, folder, lambda folder=folder: _load_folder(folder))  # type: ignore[misc]
    return manager


def call_hooks(manager: pluggy.PluginManager, hook: str, **arguments: Any) -> list[Any]:
    """Call `hook` of each plugin, those by others first; returns what they returned, without None.

    An error of ours (a plugin refuses a model) is raised. Anything else that a plugin by others raises is logged,
    what it did to a list among the arguments is undone, and the rest go on: a guest must not end a training.
    """
    results = []
    plugins = [plugin for _, plugin in manager.list_name_plugin() if plugin is not None]
    for plugin in reversed(plugins):
        caller = manager.subset_hook_caller(hook, remove_plugins=[other for other in plugins if other is not plugin])
        before = {name: copy_nested(value) for name, value in arguments.items() if isinstance(value, list)}
        try:
            results += caller(**arguments)
        except Exception as error:
            if plugin is own_plugin or isinstance(error, WanFixesError):
                raise
            for name, value in before.items():
                arguments[name][:] = value
            logger.warning(
                "plugin %s failed in %s and was passed over: %s: %s",
                manager.get_name(plugin),
                hook,
                type(error).__name__,
                error,
                exc_info=logger.isEnabledFor(logging.DEBUG),
            )
    return results


def copy_nested(nested: list[Any]) -> list[Any]:
    """The list and the lists in it anew, with the same things in them."""
    return [copy_nested(part) if isinstance(part, list) else part for part in nested]


def _add(manager: pluggy.PluginManager, name: str, load: Callable[[], Any]) -> None:
    """Load one plugin and register it, unless that object is known already; log what goes wrong."""
    plugin = None
    try:
        plugin = load()
        if plugin is own_plugin or manager.is_registered(plugin):
            return
        if isinstance(plugin, type):
            raise TypeError("it is a class; an instance is needed")
        manager.register(plugin, name)
        if not manager.get_hookcallers(plugin):
            raise ValueError("it implements no hook")
        manager.check_pending()  # a misspelt hook would otherwise never be called, in silence
    except (Exception, SystemExit) as error:  # the boundary to code by others
        if plugin is not None and manager.is_registered(plugin):
            manager.unregister(plugin)  # pluggy keeps the hooks that it took before the one that it refused
        reason = f"{type(error).__name__}: {error}"
        logger.warning("plugin %s is left out: %s", name, reason, exc_info=logger.isEnabledFor(logging.DEBUG))


def _load_folder(folder: str) -> Any:
    """Return what `plugin.py` in `folder` calls ``plugin``, or the module itself where it has no such name."""
    path = Path(folder) / "plugin.py"
    if not path.is_absolute():
        raise ValueError("the folder is not an absolute path")
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    # A name of its own, since every folder holds a `plugin`; and a package, so that it may import its neighbours.
    name = f"onetrainer_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
        assert spec is not None and spec.loader is not None  # it ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    module = sys.modules[name]
    return getattr(module, "plugin", module)
