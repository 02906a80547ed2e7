"""A training in the cloud runs in another OneTrainer, cloned there: said, or for WAN refused, before it is reached."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.patching import Patch, shielded, wrap
from wan_fixes.wan.variants import VARIANTS

logger = logging.getLogger(__name__)

MENTIONS = ("wan enable", "wan-fixes", "wan_fixes")
"""What an install command that brings the plugin has in it, one or the other."""

_HOW = (
    "put into cloud.install_cmd: git clone https://github.com/Nerogar/OneTrainer && (cd OneTrainer && ./install.sh)"
    " && pip install PLUGIN && wan enable OneTrainer, with the plugin's wheel or address for PLUGIN; it is run where"
    " cloud.onetrainer_dir is not there yet"
)


def _apply(module: ModuleType) -> None:
    wrap(module.CloudTrainer, "start", _around_start)


def _around_start(stock: Callable[[Any], Any]) -> Callable[[Any], Any]:
    # Not when the trainer is made: the window is not prepared for an error there.
    def start(trainer: Any) -> Any:
        # A training that runs there already is only looked at again.
        refusal = None if getattr(trainer, "reattach", False) else shielded(_refusal, trainer.config)
        if refusal is not None:
            _leave_the_cloud_alone(trainer)
            raise refusal
        return stock(trainer)

    return start


def _refusal(config: Any) -> UserError | None:
    """Why this cannot be trained in the cloud; None after a warning, or where the install command has the plugin."""
    if any(mention in config.cloud.install_cmd for mention in MENTIONS):
        return None
    if config.model_type.name not in VARIANTS:
        logger.warning("the cloud's OneTrainer has no validation of training data: for that, %s", _HOW)
        return None
    if not config.cloud.install_onetrainer:
        logger.warning("%s is trained in the cloud only where `wan enable` was run there", config.model_type.name)
        return None
    return UserError(
        f"{config.model_type.name} cannot be trained in the cloud like this",
        reason="without the plugin the OneTrainer there knows no WAN, and would train Stable Diffusion 1.5",
        fix=_HOW,
    )


def _leave_the_cloud_alone(trainer: Any) -> None:
    """Have the trainer's end neither stop nor delete a machine that it never reached. The user's settings stay."""
    trainer.error_caught = True
    trainer.config = copy.copy(trainer.config)
    trainer.config.cloud = copy.copy(trainer.config.cloud)
    trainer.config.cloud.on_error = type(trainer.config.cloud.on_error)["NONE"]


PATCHES = (
    Patch(
        name="cloud training",
        module="modules.trainer.CloudTrainer",
        needs=("CloudTrainer.start", "modules.util.config.CloudConfig:CloudConfig.default_values"),
        apply=_apply,
        why="warning that a cloud machine needs the plugin too",
    ),
)
