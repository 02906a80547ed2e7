"""What a transformer takes beside noisy latents: nothing (T2V), an image's channels (I2V), a clean first frame (5B)."""

from __future__ import annotations

from typing import Any

import torch

from wan_fixes.hosts.onetrainer.wan.model import WanModel
from wan_fixes.wan.conditioning import (
    add_condition,
    first_frame_mask,
    image_condition,
    keep_first_frame,
    token_timesteps,
)

LATENTS = "latent_condition"
"""Batch item of I2V: normalised latents `[B, 16, F, H, W]` of the clip that is its first frame and then gray."""
IMAGE = "image_embeds"
"""Batch item of 2.1's I2V: CLIP's view of the first frame, `[B, 257, D]`."""


def keeps_first_frame(model: WanModel, latents: torch.Tensor) -> bool:
    """Whether the first of the latents `[B, C, F, H, W]` is given instead of denoised: in every clip of the 5B.

    A still has nothing else to learn from.
    """
    return model.variant.mode == "ti2v" and latents.shape[2] > 1


def transformer_inputs(
    model: WanModel,
    transformer: Any,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    *,
    condition: torch.Tensor | None = None,
    image_embeds: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Arguments of `WanTransformer3DModel.forward` but for the text.

    Parameters
    ----------
    noisy:
        `[B, C, F, H, W]`.
    timesteps:
        `[B]`, 1000 sigma.
    condition:
        Normalised latents. I2V: of the conditioning clip. 5B: whose first frame is kept, or None. T2V: None.
    image_embeds:
        CLIP's, for 2.1's I2V.
    """
    if model.variant.mode == "ti2v":
        batch = len(noisy)
        conditioned = torch.full((batch,), condition is not None)
        mask = first_frame_mask(noisy, conditioned)
        return {
            "hidden_states": noisy if condition is None else keep_first_frame(noisy, condition, mask),
            "timestep": token_timesteps(timesteps, mask, transformer.config.patch_size),
        }
    if model.variant.mode == "t2v":
        return {"hidden_states": noisy, "timestep": timesteps}
    if condition is None:
        raise ValueError(f"{model.variant.label} needs a condition")
    inputs = {"hidden_states": add_condition(noisy, image_condition(condition)), "timestep": timesteps}
    if image_embeds is not None:
        inputs["encoder_hidden_states_image"] = image_embeds.to(noisy.dtype)
    return inputs
