"""What a training of WAN is refused for before anything is loaded: minutes of reading a model would be for nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from modules.util.config.SampleConfig import SampleConfig

from wan_fixes.errors import UserError
from wan_fixes.health import plain
from wan_fixes.hosts.onetrainer.wan.configuration import check_configuration
from wan_fixes.hosts.onetrainer.wan.sampler import read_image
from wan_fixes.wan.variants import WanVariant, get_variant

logger = logging.getLogger(__name__)

_PROMPT_SHOWN = 60  # characters


def check_before_loading(config: Any) -> None:
    """Look at a whole configuration of a training.

    Raises
    ------
    UserError
        Naming the setting or the sample, and what to set instead.
    """
    variant = get_variant(config.model_type.name)
    _check_training_method(config)
    check_configuration(config, variant)
    _check_output_format(config)
    _check_samples(config, variant)
    if config.text_encoder.train:
        logger.warning("WAN's text encoder is not trained: its switch is passed over")


def _check_training_method(config: Any) -> None:
    """OneTrainer would find no loader for it, and say that None cannot load."""
    supported = config.model_type.supported_training_methods()
    if config.training_method not in supported:
        names = " or ".join(known.name for known in supported)
        raise UserError(
            f"WAN cannot be trained by the method {config.training_method.name}",
            reason="only its transformers are trained",
            fix=f"set training_method to {names}",
        )


def _check_output_format(config: Any) -> None:
    """OneTrainer would say so when it saves what the whole training has made."""
    supported = config.model_type.supported_output_formats(config.training_method)
    if config.output_model_format not in supported:
        method = config.training_method.name
        raise UserError(
            f"WAN cannot be saved as {config.output_model_format.name} after {method}",
            reason=f"the formats for it are {', '.join(known.name for known in supported)}",
            fix=f"set output_model_format to {supported[0].name}",
        )


def _check_samples(config: Any, variant: WanVariant) -> None:
    """OneTrainer would print a traceback at each sample, and train on without any."""
    if not _samples_while_training(config):
        return
    for number, sample in enumerate(_samples(config), 1):
        if not sample.enabled:
            continue
        try:
            read_image(sample.base_image_path, variant)
        except UserError as error:
            raise UserError(
                f"sample {number} ({plain(sample.prompt, _PROMPT_SHOWN)!r}): {error.what}",
                path=error.path,
                reason=error.reason,
                fix=f"{error.fix}, or disable that sample",
            ) from error


def _samples_while_training(config: Any) -> bool:
    unit = config.sample_after_unit.name
    return unit != "NEVER" and not (unit in ("EPOCH", "STEP") and int(config.sample_after) == 0)


def _samples(config: Any) -> list[Any]:
    """The samples as OneTrainer will find them when it makes them: the configuration's own, or those of its file.

    A file that cannot be read is left to OneTrainer, which reads it next and stops there.
    """
    if config.samples is not None:
        return list(config.samples)
    try:
        described = json.loads(Path(config.sample_definition_file_name).read_text(encoding="utf-8"))
        return [SampleConfig.default_values(config.model_type).from_dict(sample) for sample in described]
    except (OSError, ValueError, TypeError, AttributeError):
        return []
