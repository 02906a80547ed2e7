"""What a OneTrainer configuration may ask of WAN: said before any work is done, with what to set instead."""

from __future__ import annotations

import re
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.wan.predict import distribution
from wan_fixes.wan.latents import check_frame_count
from wan_fixes.wan.variants import WanVariant


def check_configuration(config: Any, variant: WanVariant) -> None:
    """Refuse what would fail later or train something else than what it says.

    Raises
    ------
    UserError
        Naming the setting and what to set instead.
    """
    distribution(config)
    for frames in re.findall(r"\d+", config.frames):
        check_frame_count(int(frames), temporal_compression=variant.temporal_compression)
    if config.dynamic_timestep_shifting:
        raise UserError(
            "WAN has no dynamic timestep shift",
            reason="its models were trained with a fixed one",
            fix=f"switch dynamic_timestep_shifting off and set timestep_shift; the sampler has {variant.default_shift}",
        )
    if config.train_any_embedding() or config.train_any_output_embedding():
        raise UserError(
            "embeddings cannot be trained for WAN",
            reason="its text encoder is only read",
            fix="remove additional_embeddings, and train a LoRA",
        )
    for part in ("transformer", "transformer_2")[: variant.experts]:
        setting = getattr(config, part)
        if config.training_method.name == "FINE_TUNE" and setting.train and setting.weight_dtype.is_gguf():
            raise UserError(
                f"{part} cannot be trained as a whole from a GGUF file",
                reason="its weights are stored as they are quantised, which no optimizer can change",
                fix=f"train a LoRA, or take full weights and another weight_dtype of {part}",
            )
