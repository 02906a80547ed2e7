"""A training of WAN that cannot end well is refused when it starts, before its model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.errors import WanFixesError
from wan_fixes.hosts.onetrainer.patching import Patch, wrap
from wan_fixes.wan.variants import VARIANTS

logger = logging.getLogger(__name__)


def _apply(module: ModuleType) -> None:
    wrap(module.GenericTrainer, "start", _around_start)


def _around_start(stock: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def start(trainer: Any) -> Any:
        if trainer.config.model_type.name in VARIANTS:
            _check(trainer.config)
        return stock(trainer)

    return start


def _check(config: Any) -> None:
    from wan_fixes.hosts.onetrainer.wan.before_loading import check_before_loading

    try:
        check_before_loading(config)
    except WanFixesError:
        raise
    except Exception:
        logger.exception("the configuration could not be checked, and OneTrainer goes on")


PATCHES = (
    Patch(
        name="wan configuration",
        module="modules.trainer.GenericTrainer",
        needs=(
            "GenericTrainer.start",
            "modules.util.enum.ModelType:ModelType.supported_output_formats",
            "modules.util.config.SampleConfig:SampleConfig.default_values",
        ),
        apply=_apply,
        why="refusal of a WAN configuration before its model is loaded",
    ),
)
