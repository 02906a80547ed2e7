"""What WAN needs in OneTrainer's window: its training tab, its parts on the model tab, the first frame of a sample."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patching import Patch, wrap
from wan_fixes.wan.variants import VARIANTS

TRAINING_FRAME = "_BaseTrainingTabView__create_{}_frame"
"""Stock's functions that lay one section of a training tab, by the name of the section."""
STOCK_FRAMES = ("base", "base2", "text_encoder", "transformer", "masked", "loss", "layer")
OFFLOADING = "_BaseTrainingTabView__create_offloading_widgets"
PARTS = "_BaseModelTabView__create_base_components"
DTYPES = "_BaseModelTabView__create_dtype_options"


def _extend_training_tab(module: ModuleType) -> None:
    def around(stock: Callable[..., Any]) -> Callable[..., Any]:
        def build(view: Any, column_0: Any, column_1: Any, column_2: Any, controller: Any, ui_state: Any) -> Any:
            variant = VARIANTS.get(controller.config.model_type.name)
            if variant is None:
                return stock(view, column_0, column_1, column_2, controller, ui_state)
            from wan_fixes.hosts.onetrainer.wan.training_tab import build_training_tab

            return build_training_tab(view, variant, (column_0, column_1, column_2), controller, ui_state)

        return build

    wrap(module.BaseTrainingTabView, "build", around)


def _extend_model_tab(module: ModuleType) -> None:
    def around(stock: Callable[..., int]) -> Callable[..., int]:
        def create_parts(view: Any, frame: Any, row: int, controller: Any, ui_state: Any, **options: Any) -> int:
            row = stock(view, frame, row, controller, ui_state, **options)
            variant = VARIANTS.get(controller.train_config.model_type.name)
            if variant is None:
                return row
            from wan_fixes.hosts.onetrainer.wan.model_tab import add_parts

            return add_parts(view, variant, frame, row, ui_state)

        return create_parts

    wrap(module.BaseModelTabView, PARTS, around)


def _extend_model_tab_controller(module: ModuleType) -> None:
    def around(stock: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def supports_override_transformer(self: Any) -> bool:
            return self.train_config.model_type.name in VARIANTS or stock(self)

        return supports_override_transformer

    wrap(module.ModelTabController, "supports_override_transformer", around)


def _extend_sample_frame(module: ModuleType) -> None:
    def around(stock: Callable[..., Any]) -> Callable[..., Any]:
        def build_content(
            view: Any,
            top_frame: Any,
            bottom_frame: Any,
            ui_state: Any,
            controller: Any,
            include_prompt: bool,
            include_settings: bool,
        ) -> Any:
            stock(view, top_frame, bottom_frame, ui_state, controller, include_prompt, include_settings)
            variant = VARIANTS.get(controller.model_type.name)
            if include_settings and variant is not None and variant.mode != "t2v":
                _add_first_frame(view.components, bottom_frame, ui_state, needed=variant.mode == "i2v")

        return build_content

    wrap(module.BaseSampleFrameView, "build_content", around)


def _add_first_frame(components: Any, frame: Any, ui_state: Any, *, needed: bool) -> None:
    row = 5  # where stock has the picture of inpainting models
    tooltip = "The picture that the clip begins with. " + (
        "This model makes no clip without one." if needed else "Without one the clip is made of the prompt alone."
    )
    components.label(frame, row, 0, "first frame:", tooltip=tooltip)
    components.path_entry(
        frame, row, 1, ui_state, "base_image_path", mode="file", allow_model_files=False, allow_image_files=True
    )


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="wan training tab",
        module="modules.ui.BaseTrainingTabView",
        needs=(
            "BaseTrainingTabView.build",
            f"BaseTrainingTabView.{OFFLOADING}",
            *(f"BaseTrainingTabView.{TRAINING_FRAME.format(name)}" for name in STOCK_FRAMES),
        ),
        apply=_extend_training_tab,
        why="training tab for WAN in the window: load a configuration instead",
    ),
    Patch(
        name="wan parts on the model tab",
        module="modules.ui.BaseModelTabView",
        needs=(f"BaseModelTabView.{PARTS}", f"BaseModelTabView.{DTYPES}"),
        apply=_extend_model_tab,
        why="field for WAN 2.2's second expert and I2V's image encoder",
    ),
    Patch(
        name="wan transformer file",
        module="modules.ui.ModelTabController",
        needs=("ModelTabController.supports_override_transformer",),
        apply=_extend_model_tab_controller,
        why="field for a WAN transformer in a file of its own",
    ),
    Patch(
        name="wan sample's first frame",
        module="modules.ui.BaseSampleFrameView",
        needs=("BaseSampleFrameView.build_content",),
        apply=_extend_sample_frame,
        why="field for the first frame of WAN's samples",
    ),
)
