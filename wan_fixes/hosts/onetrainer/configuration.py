"""Looks over the configuration of a training when it starts, before OneTrainer clears or loads anything."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wan_fixes.errors import WanFixesError
from wan_fixes.health import plain
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.layout import models_root
from wan_fixes.preflight import ConfigFinding, check_config, errors_in, refusal, warnings_in
from wan_fixes.settings import Settings

logger = logging.getLogger(__name__)


def model_types() -> frozenset[str]:
    """The names of OneTrainer's model types, ours among them; none where OneTrainer is not loaded."""
    module = sys.modules.get("modules.util.enum.ModelType")
    return frozenset(getattr(getattr(module, "ModelType", None), "__members__", ()))


def preflight_or_refuse(
    config: Mapping[str, Any], say: Callable[[str], None], *, tells_warnings: bool = True
) -> list[ConfigFinding]:
    """Check a configuration as `TrainConfig.to_dict()` gives it; relative paths are those of the working folder.

    Warnings are returned, and logged unless another process does so. `say` shows a line in OneTrainer's window. With
    the plugin or `check_configuration` switched off nothing is looked at; nor does a fault of a check stop a training.

    Raises
    ------
    UserError
        If the configuration cannot be trained: with every error in it.
    """
    try:
        settings = Settings.load()
        if not (settings.enabled and settings.check_configuration):
            return []
        machine = Hardware.of_this_machine(models_root())
        found = check_config(config, base=Path.cwd(), gpu=machine, settings=settings, host_types=model_types())
    except WanFixesError as error:  # settings or a manifest that cannot be read: said where they are needed
        logger.warning("the configuration is not checked: %s", plain(str(error)))
        return []
    except Exception:
        logger.exception("the configuration could not be checked, and OneTrainer goes on")
        return []
    for warning in warnings_in(found) if tells_warnings else []:
        logger.warning("%s", plain(str(warning)))
    refused = refusal(found)
    if refused is not None:
        say(plain(f"{refused.what}: {errors_in(found)[0].what}"))
        raise refused
    return warnings_in(found)
