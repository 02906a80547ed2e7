"""How an image conditions WAN: channels beside the noise (I2V), or a first frame that is kept clean (TI2V 5B).

Everything follows diffusers' `WanImageToVideoPipeline` (`pipelines/wan/pipeline_wan_i2v.py`), so that a model is
trained on what it is sampled with:

- **I2V** of 2.1 and 2.2: the transformer takes 36 channels, which are 16 of noisy latents, 4 of a mask, and 16 of the
  latents of a clip that is the image and then gray (`condition_video`, `encode_condition`, `image_condition`,
  `add_condition`). 2.1 also attends to CLIP's view of the image (`encode_images`). With it, WAN's attention takes
  everything before the last 512 tokens for the image's: text embeddings have to be 512 tokens long.
- **TI2V 5B**: the transformer takes the 48 channels of its latents. The first latent frame is the image's, without
  noise, and its tokens have timestep 0 (`first_frame_mask`, `keep_first_frame`, `token_timesteps`). What the model
  predicts there is never used when sampling, so it has no part in the loss (`flow_matching_loss(…, mask=mask)`).
  Without an image the mask is 1 everywhere; the timesteps are given per token all the same.

Latents are normalised ones throughout. Shapes: B samples, C channels, F latent frames, H and W in latent pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from wan_fixes.wan.latents import check_frame_count, normalize_latents

MASK_CHANNELS = 4
"""A latent frame stands for four frames; the mask has a channel for each, 1 for a frame that is given."""


def condition_video(first_frames: torch.Tensor, frames: int) -> torch.Tensor:
    """The clip that an I2V model is given: the image, and then gray.

    Parameters
    ----------
    first_frames:
        `[..., 3, height, width]` in -1 to 1, at the size of the clip.
    frames:
        Frames of the clip, 4n + 1.

    Returns
    -------
    `[..., 3, frames, height, width]`, same dtype; 0 (gray) but for the first frame.

    Raises
    ------
    UserError
        If the number of frames does not fit.
    """
    check_frame_count(frames)
    video = first_frames.new_zeros(*first_frames.shape[:-2], frames, *first_frames.shape[-2:])
    video[..., 0, :, :] = first_frames
    return video


def encode_condition(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Normalised latents of a condition: for I2V of `condition_video`, for TI2V of the image as a clip of one frame.

    They are the mode of the VAE's distribution, no sample. `AutoencoderKLWan` is not thread-safe: hold the VAE's lock.

    Parameters
    ----------
    vae:
        `AutoencoderKLWan`; encoded in its dtype and on its device.
    video:
        `[B, 3, frames, height, width]` in -1 to 1.

    Returns
    -------
    `[B, C, F, H, W]` fp32.
    """
    with torch.no_grad():
        latents = vae.encode(video.to(device=vae.device, dtype=vae.dtype)).latent_dist.mode()
    return normalize_latents(latents.float(), vae.config)


def image_condition(latents: torch.Tensor) -> torch.Tensor:
    """The channels that I2V concatenates to the noise: the mask, then the condition's latents.

    Parameters
    ----------
    latents:
        `[B, 16, F, H, W]`, of `condition_video`.

    Returns
    -------
    `[B, 20, F, H, W]`, same dtype. The mask is 1 in the first latent frame and 0 after it: diffusers repeats the
    first frame four times, since the VAE makes a latent frame of it alone.
    """
    batch, _, *size = latents.shape
    mask = latents.new_zeros(batch, MASK_CHANNELS, *size)
    mask[:, :, 0] = 1.0
    return torch.cat([mask, latents], dim=1)


def add_condition(noisy: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """What an I2V transformer takes: `[B, 36, F, H, W]` of `[B, 16, F, H, W]` and `image_condition`'s 20 channels."""
    if noisy.shape[0] != condition.shape[0] or noisy.shape[2:] != condition.shape[2:]:
        raise ValueError(f"the condition does not fit the latents: {noisy.shape = }, {condition.shape = }")
    return torch.cat([noisy, condition.to(device=noisy.device, dtype=noisy.dtype)], dim=1)


def encode_images(image_processor: Any, image_encoder: Any, images: torch.Tensor) -> torch.Tensor:
    """What 2.1's I2V attends to: CLIP's last hidden state but one, before its final layer shapes it for captions.

    Parameters
    ----------
    image_processor, image_encoder:
        `CLIPImageProcessor` and `CLIPVisionModel` of the model's folder.
    images:
        `[B, 3, height, width]` in -1 to 1: first frames. They are rounded to 8 bits, as pictures are.

    Returns
    -------
    `[B, tokens, D]` in the encoder's dtype and on its device; 257 tokens for the released encoder.
    """
    from PIL import Image

    pixels = ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pictures = [Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()) for picture in pixels]
    values = image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = image_encoder(
            pixel_values=values.to(device=image_encoder.device, dtype=image_encoder.dtype), output_hidden_states=True
        )
    return output.hidden_states[-2]


def first_frame_mask(latents: torch.Tensor, conditioned: torch.Tensor | None = None) -> torch.Tensor:
    """Where the 5B has to denoise: 1, and 0 in the first latent frame of samples that are given an image.

    Parameters
    ----------
    latents:
        `[B, C, F, H, W]`; only the shape counts.
    conditioned:
        `[B]` bool: which samples are given their first frame. None: all of them.

    Returns
    -------
    `[B, 1, F, H, W]` fp32 on the latents' device.
    """
    batch, _, frames, *size = latents.shape
    mask = torch.ones(batch, 1, frames, *size, device=latents.device)
    if conditioned is None:
        mask[:, :, 0] = 0.0
    else:
        mask[conditioned.to(device=latents.device), :, 0] = 0.0
    return mask


def keep_first_frame(noisy: torch.Tensor, latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the 5B takes: `noisy`, but `latents` where `first_frame_mask` is 0.

    Parameters
    ----------
    noisy:
        `[B, 48, F, H, W]`.
    latents:
        Same shape, or `[B, 48, 1, H, W]`: the first frame alone.
    """
    return torch.where(mask.bool(), noisy, latents.to(device=noisy.device, dtype=noisy.dtype))


def token_timesteps(timesteps: torch.Tensor, mask: torch.Tensor, patch_size: Sequence[int] = (1, 2, 2)) -> torch.Tensor:
    """Timesteps of the 5B's tokens: 0 where the first frame is kept, the sample's own elsewhere.

    Parameters
    ----------
    timesteps:
        `[B]`, 1000 sigma.
    mask:
        `first_frame_mask`'s `[B, 1, F, H, W]`.
    patch_size:
        The transformer's `patch_size`: latent frames and pixels that make one token.

    Returns
    -------
    `[B, tokens]` fp32, in the order of the transformer's tokens.
    """
    if timesteps.shape != mask.shape[:1]:
        raise ValueError(f"one timestep for each sample is needed: {timesteps.shape = }, {mask.shape = }")
    time, height, width = patch_size
    per_token = mask[:, 0, ::time, ::height, ::width]
    return (per_token * timesteps.to(device=mask.device, dtype=torch.float32).view(-1, 1, 1, 1)).flatten(1)
