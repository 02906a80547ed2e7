"""Before any weight is read the plugins may look at the model's files, and after one is written they hear of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patching import Patch, shielded, wrap


def _apply_to_loaders(module: ModuleType) -> None:
    wrap(module, "create_model_loader", _around_create_loader)


def _around_create_loader(stock: Callable[..., Any]) -> Callable[..., Any]:
    def create_model_loader(*args: Any, **kwargs: Any) -> Any:
        loader = stock(*args, **kwargs)
        if loader is not None:
            shielded(_look_before_loading, loader)
        return loader

    return create_model_loader


def _look_before_loading(loader: Any) -> None:
    """Every call site makes a loader of its own and calls its `load`, so the object is wrapped and not each class."""
    stock = loader.load

    def load(model_type: Any, model_names: Any, *args: Any, **kwargs: Any) -> Any:
        before_loading(model_type, model_names)
        start = time.monotonic()
        result = stock(model_type, model_names, *args, **kwargs)
        shielded(_note_loaded, str(model_names.base_model or ""), time.monotonic() - start)
        return result

    loader.load = load


def before_loading(model_type: Any, model_names: Any) -> None:
    """Put the folder of the model in the place of its name, and let the plugins look at it.

    Raises what a plugin refuses the model with.
    """
    from wan_fixes.hosts.onetrainer import training as trainings
    from wan_fixes.plugins import get_plugin_manager
    from wan_fixes.settings import Settings

    settings = shielded(Settings.load)
    if settings is None or not settings.enabled:
        return
    plugins, training = get_plugin_manager(settings), trainings.current()
    if settings.ensure_models:
        _locate(plugins, training, model_type, model_names)
    if settings.check_models:
        _ask(plugins, training, model_type, model_names)


def _locate(plugins: Any, training: Any, model_type: Any, model_names: Any) -> None:
    """Call ``onetrainer_locate_model``."""
    from wan_fixes.plugins import call_hooks

    found = call_hooks(
        plugins,
        "onetrainer_locate_model",
        model_type=model_type.name,
        base_model=str(model_names.base_model or ""),
        say=(lambda _: None) if training is None else training.say,
    )
    if found:
        model_names.base_model = found[0]


def _ask(plugins: Any, training: Any, model_type: Any, model_names: Any) -> None:
    """Call ``onetrainer_before_model_load``."""
    from wan_fixes.plugins import call_hooks

    config = dict(training.config) if training is not None else {}
    # What is loaded, which is not always what the configuration names: a backup, or the converter's input.
    config |= {f"{name}_name": value for name, value in vars(model_names).items() if isinstance(value, str)}
    call_hooks(
        plugins,
        "onetrainer_before_model_load",
        model_type=model_type.name,
        base_model=str(model_names.base_model or ""),
        config=config,
    )


def _note_loaded(base_model: str, seconds: float) -> None:
    from wan_fixes.hosts.onetrainer import training as trainings

    training = trainings.current()
    if training is not None:
        training.note("model_loaded", "the model was loaded", path=base_model, seconds=seconds)


def _apply_to_savers(module: ModuleType) -> None:
    wrap(module, "create_model_saver", _around_create_saver)


def _around_create_saver(stock: Callable[..., Any]) -> Callable[..., Any]:
    def create_model_saver(*args: Any, **kwargs: Any) -> Any:
        saver = stock(*args, **kwargs)
        if saver is not None:
            shielded(_tell_after_saving, saver)
        return saver

    return create_model_saver


def _tell_after_saving(saver: Any) -> None:
    stock = saver.save

    def save(*args: Any, **kwargs: Any) -> Any:
        result = stock(*args, **kwargs)
        shielded(_tell, kwargs)
        return result

    saver.save = save


def _tell(arguments: dict[str, Any]) -> None:
    from wan_fixes.hosts.onetrainer import training as trainings

    training = trainings.current()
    destination = arguments.get("output_model_destination")
    if training is not None and destination is not None:
        path = os.path.abspath(destination)  # noqa: PTH100 - as OneTrainer sees it, links and all
        training.note_saved("checkpoint_saved", "weights were written", path=path)


PATCHES = (
    Patch(
        name="model ensure",
        module="modules.util.create",
        needs=("create_model_loader",),
        apply=_apply_to_loaders,
        why="check of a model's files before it is loaded",
    ),
    Patch(
        name="model saved",
        module="modules.util.create",
        needs=("create_model_saver",),
        apply=_apply_to_savers,
        why="record of the weights that a training wrote",
    ),
)
