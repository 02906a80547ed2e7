"""The table of touch points: every place where the plugin reaches into OneTrainer, what it needs there, and why."""

from __future__ import annotations

from wan_fixes.hosts.onetrainer.patches import (
    cloud,
    model_ensure,
    model_types,
    pipeline,
    ranks,
    registration,
    train_config,
    training_record,
    wan_configuration,
    wan_menus,
    wan_tabs,
    window,
)
from wan_fixes.hosts.onetrainer.patching import Patch

PATCHES: tuple[Patch, ...] = (
    *pipeline.PATCHES,
    *ranks.PATCHES,
    *wan_configuration.PATCHES,  # before the record, which then lies around it and has its refusals
    *training_record.PATCHES,
    *model_types.PATCHES,
    *train_config.PATCHES,
    *registration.PATCHES,
    *model_ensure.PATCHES,
    *cloud.PATCHES,
    *window.PATCHES,
    *wan_menus.PATCHES,
    *wan_tabs.PATCHES,
)
"""In the order in which patches of one module are applied."""

SUBSTITUTION = pipeline.NAME
"""The touch point without which a OneTrainer is too old for the plugin to be of any use."""
