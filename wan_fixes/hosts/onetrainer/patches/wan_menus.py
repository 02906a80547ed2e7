"""WAN in the menus of OneTrainer's window: its model types, its presets, and the list of the model converter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patching import Patch, wrap
from wan_fixes.wan.variants import VARIANTS

PRESETS = Path(__file__).resolve().parents[1] / "presets"
"""A folder for each model, in it OneTrainer's presets: their names begin with ``#``, as the names of stock ones do."""

_STOCK_PRESETS = "training_presets"


def _extend_top_bar(module: ModuleType) -> None:
    wrap(module.TopBarController, "get_model_types", _with_wan(module.ModelType))
    wrap(module.TopBarController, "load_preset_tree", _with_presets)


def _with_wan(model_type: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(stock: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
        def get_model_types(self: Any) -> list[Any]:
            return [*stock(self), *_menu_entries(model_type)]

        return get_model_types

    return around


def _menu_entries(model_type: Any) -> list[tuple[str, Any]]:
    members = model_type.__members__
    return [(variant.short_label, members[name]) for name, variant in VARIANTS.items() if name in members]


def _with_presets(stock: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def load_preset_tree(self: Any, dir: str = _STOCK_PRESETS) -> list[Any]:
        nodes = stock(self, dir)
        if dir != _STOCK_PRESETS:  # a folder in it, or ours
            return nodes
        return sorted([*nodes, *stock(self, str(PRESETS))], key=lambda node: node[0].lower())

    return load_preset_tree


def _extend_converter(module: ModuleType) -> None:
    def around(stock: Callable[..., Any]) -> Callable[..., Any]:
        def build_content(self: Any, *args: Any, **kwargs: Any) -> Any:
            # The list stands in the middle of the function: while that runs, the builder of menus adds to it.
            components = self.components
            self.components = _MoreModelTypes(components, _menu_entries(module.ModelType))
            try:
                return stock(self, *args, **kwargs)
            finally:
                self.components = components

        return build_content

    wrap(module.BaseConvertModelUIView, "build_content", around)


class _MoreModelTypes:
    """OneTrainer's builders of widgets, with more entries in the menu of model types."""

    def __init__(self, components: Any, entries: list[tuple[str, Any]]) -> None:
        self._components = components
        self._entries = entries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._components, name)

    def options_kv(
        self, master: Any, row: int, column: int, values: list[Any], ui_state: Any, var_name: str, **options: Any
    ) -> Any:
        if var_name == "model_type":
            values = [*values, *self._entries]
        return self._components.options_kv(master, row, column, values, ui_state, var_name, **options)


_MODEL_TYPES = "modules.util.enum.ModelType:_MODEL_PARTS"  # without it WAN is not among the model types

PATCHES: tuple[Patch, ...] = (
    Patch(
        name="wan menus",
        module="modules.ui.TopBarController",
        needs=("ModelType", "TopBarController.get_model_types", "TopBarController.load_preset_tree", _MODEL_TYPES),
        apply=_extend_top_bar,
        why="WAN in the menus of models and presets: load a configuration for it instead",
    ),
    Patch(
        name="wan in the model converter",
        module="modules.ui.BaseConvertModelUIView",
        needs=("ModelType", "BaseConvertModelUIView.build_content", _MODEL_TYPES),
        apply=_extend_converter,
        why="WAN in the window that converts models: use scripts/convert_model.py instead",
    ),
)
