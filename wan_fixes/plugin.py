"""Our hook implementations: thin, with the work done in the rooms that they call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wan_fixes.hookspecs import hookimpl

if TYPE_CHECKING:
    from wan_fixes.pipeline.context import PipelineContext
    from wan_fixes.wan.variants import WanVariant

__all__ = ["WanFixesPlugin", "plugin"]

# Imports are inside the hooks, because registering a plugin must not cost an import of torch.


class WanFixesPlugin:
    """WAN and the validated pipeline, as a plugin for either host."""

    @hookimpl
    def onetrainer_register_models(self) -> list[WanVariant]:
        from wan_fixes.wan.variants import VARIANTS

        return list(VARIANTS.values())

    @hookimpl
    def onetrainer_locate_model(self, model_type: str, base_model: str, say: Callable[[str], None]) -> str | None:
        from wan_fixes.models.locate import locate_model

        return locate_model(model_type, base_model, say)

    @hookimpl
    def onetrainer_before_model_load(self, model_type: str, base_model: str, config: dict[str, Any]) -> None:
        from wan_fixes.wan.model_check import check_named_files

        check_named_files(model_type, base_model, config)

    @hookimpl
    def onetrainer_rewrite_pipeline(self, definition: list[Any], context: PipelineContext) -> None:
        from wan_fixes.pipeline.rewrite import rewrite_definition

        rewrite_definition(definition, context)

    @hookimpl
    def onetrainer_ui_tabs(self) -> list[Any]:
        from wan_fixes.ui.tab import WanTab

        return [WanTab()]


plugin = WanFixesPlugin()
