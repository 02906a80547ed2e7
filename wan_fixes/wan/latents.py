"""WAN's latents: their size, the frame counts that the VAE can take, and their normalisation.

The diffusion model sees latents whose channels have mean 0 and deviation 1; the VAE gives them raw. diffusers'
`WanPipeline` undoes the normalisation just before decoding (`pipelines/wan/pipeline_wan.py`), so training has
to apply it just after encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from wan_fixes.errors import UserError


def normalize_latents(latents: torch.Tensor, vae_config: Any) -> torch.Tensor:
    """Scale raw latents to mean 0 and deviation 1 per channel: `(z - mean) / std`.

    Parameters
    ----------
    latents:
        `[B, C, F, H, W]` or `[C, F, H, W]`, as `AutoencoderKLWan.encode` gives them, floating point.
    vae_config:
        The VAE's config (object or mapping) with `latents_mean` and `latents_std`, C numbers each.

    Returns
    -------
    Same shape and dtype; computed in fp32, since bf16 would lose the mean of channels far from zero.
    """
    mean, std = _statistics(latents, vae_config)
    return ((latents.float() - mean) / std).to(latents.dtype)


def denormalize_latents(latents: torch.Tensor, vae_config: Any) -> torch.Tensor:
    """The inverse of `normalize_latents`, for decoding: `z * std + mean`. Same shape and dtype."""
    mean, std = _statistics(latents, vae_config)
    return (latents.float() * std + mean).to(latents.dtype)


def check_frame_count(frames: int, *, temporal_compression: int = 4) -> int:
    """Return `frames` if the VAE can take that many without loss, which is 4n + 1.

    `AutoencoderKLWan` encodes the first frame alone and then groups of four; with any other number it silently
    drops the rest.

    Raises
    ------
    UserError
        For any other number; the message names the nearest that fit.
    """
    if frames >= 1 and (frames - 1) % temporal_compression == 0:
        return frames
    below = max(1, (frames - 1) // temporal_compression * temporal_compression + 1)
    above = below + temporal_compression
    raise UserError(
        f"{frames} frames do not fit WAN",
        reason=f"WAN takes {temporal_compression}n + 1 frames: one, and then groups of {temporal_compression}",
        fix=f"set the number of frames to {below} or {above}",
    )


def latent_shape(
    frames: int,
    height: int,
    width: int,
    *,
    channels: int = 16,
    spatial_compression: int = 8,
    temporal_compression: int = 4,
) -> tuple[int, int, int, int]:
    """Shape `(C, F, H, W)` of the latents of a clip of `frames` frames (4n + 1) of `height` by `width` pixels.

    Raises
    ------
    UserError
        If the frames do not fit (see `check_frame_count`) or the size is no multiple of `spatial_compression`.
    """
    check_frame_count(frames, temporal_compression=temporal_compression)
    if min(height, width) < 1 or height % spatial_compression or width % spatial_compression:
        raise UserError(
            f"a frame of {width}x{height} does not fit WAN's VAE",
            reason=f"width and height have to be multiples of {spatial_compression}",
            fix="change the resolution",
        )
    return (
        channels,
        (frames - 1) // temporal_compression + 1,
        height // spatial_compression,
        width // spatial_compression,
    )


def _statistics(latents: torch.Tensor, vae_config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation as fp32 `[C, 1, 1, 1]`, which broadcasts with and without a batch."""
    mean, std = (
        torch.tensor(
            vae_config[name] if isinstance(vae_config, Mapping) else getattr(vae_config, name),
            dtype=torch.float32,
            device=latents.device,
        ).view(-1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    channels = latents.shape[-4]
    if not channels == len(mean) == len(std):
        raise ValueError(f"{latents.shape = } has {channels} channels, but {len(mean) = } and {len(std) = }")
    return mean, std
