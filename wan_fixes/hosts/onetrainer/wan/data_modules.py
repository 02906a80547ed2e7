"""Pipeline modules for WAN that stock MGDS lacks: text embeddings, image conditions, masks in the size of latents."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as functional

from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.vae_lock import vae_lock
from wan_fixes.wan.conditioning import condition_video, encode_condition, encode_images
from wan_fixes.wan.text import trim_embeddings


class EncodeWanText(PipelineModule, RandomAccessPipelineModule):
    """Tokens `[512]` and their mask to embeddings `[512, D]` of `dtype`, zeros where there is no token."""

    def __init__(
        self,
        tokens_in_name: str,
        tokens_mask_in_name: str,
        hidden_state_out_name: str,
        text_encoder: Any,
        autocast_contexts: list[Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.tokens_in_name = tokens_in_name
        self.tokens_mask_in_name = tokens_mask_in_name
        self.hidden_state_out_name = hidden_state_out_name
        self.text_encoder = text_encoder
        self.autocast_contexts = autocast_contexts or [nullcontext()]
        self.dtype = dtype

    def length(self) -> int:
        return int(self._get_previous_length(self.tokens_in_name))

    def get_inputs(self) -> list[str]:
        return [self.tokens_in_name, self.tokens_mask_in_name]

    def get_outputs(self) -> list[str]:
        return [self.hidden_state_out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        tokens = self._get_previous_item(variation, self.tokens_in_name, index).unsqueeze(0)
        mask = self._get_previous_item(variation, self.tokens_mask_in_name, index).unsqueeze(0)
        with self._all_contexts(self.autocast_contexts), torch.no_grad():
            hidden = self.text_encoder(tokens, mask).last_hidden_state
        return {self.hidden_state_out_name: trim_embeddings(hidden, mask)[0].to(self.dtype or hidden.dtype)}


class EncodeFirstFrame(PipelineModule, RandomAccessPipelineModule):
    """A clip `[3, F, H, W]` in -1 to 1 to the normalised latents `[16, f, h, w]` of its first frame and then gray."""

    def __init__(self, in_name: str, out_name: str, vae: Any) -> None:
        super().__init__()
        self.in_name = in_name
        self.out_name = out_name
        self.vae = vae
        self.tiled = vae.use_tiling  # read by the sample cache: it changes the latents

    def length(self) -> int:
        return int(self._get_previous_length(self.in_name))

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        clip = self._get_previous_item(variation, self.in_name, index)
        with vae_lock(self.vae):
            latents = encode_condition(self.vae, condition_video(clip[None, :, 0], clip.shape[1]))
        return {self.out_name: latents[0]}


class EncodeFirstImage(PipelineModule, RandomAccessPipelineModule):
    """The first frame of a clip `[3, F, H, W]` in -1 to 1 to CLIP's view of it, `[tokens, D]` of `dtype`."""

    def __init__(
        self, in_name: str, out_name: str, image_processor: Any, image_encoder: Any, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.in_name = in_name
        self.out_name = out_name
        self.image_processor = image_processor
        self.image_encoder = image_encoder
        self.dtype = dtype

    def length(self) -> int:
        return int(self._get_previous_length(self.in_name))

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        clip = self._get_previous_item(variation, self.in_name, index)
        embeds = encode_images(self.image_processor, self.image_encoder, clip[None, :, 0])
        return {self.out_name: embeds[0].to(self.dtype or embeds.dtype)}


class ShrinkMask(PipelineModule, RandomAccessPipelineModule):
    """A mask `[1, F, H, W]` to the size of the latents: in space and in time, where the first frame stands alone.

    Stock `ScaleImage` shrinks space only, and masked training of video dies of it. A mask of one frame, as every mask
    that comes from a picture, covers all frames of the clip.
    """

    def __init__(self, mask_name: str, latent_name: str, out_name: str, *, temporal_compression: int = 4) -> None:
        super().__init__()
        self.mask_name = mask_name
        self.latent_name = latent_name
        self.out_name = out_name
        self.temporal_compression = temporal_compression

    def length(self) -> int:
        return int(self._get_previous_length(self.mask_name))

    def get_inputs(self) -> list[str]:
        return [self.mask_name, self.latent_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        mask = self._get_previous_item(variation, self.mask_name, index)
        size = self._get_previous_item(variation, self.latent_name, index).shape[-3:]
        return {self.out_name: shrink_mask(mask, tuple(size), self.temporal_compression)}


def shrink_mask(mask: torch.Tensor, size: tuple[int, int, int], temporal_compression: int) -> torch.Tensor:
    """Average a mask `[1, F, H, W]` over the pixels and frames that each latent of `size` `(f, h, w)` stands for."""
    frames = (size[0] - 1) * temporal_compression + 1
    if mask.shape[1] == 1:
        mask = mask.expand(-1, frames, -1, -1)
    if mask.shape[1] != frames:
        raise ValueError(f"{mask.shape = } does not fit latents of {size = }")
    first, rest = mask[:, :1], mask[:, 1:]
    pooled = [functional.adaptive_avg_pool3d(first.float(), (1, size[1], size[2]))]
    if size[0] > 1:
        pooled.append(functional.adaptive_avg_pool3d(rest.float(), (size[0] - 1, size[1], size[2])))
    return torch.cat(pooled, dim=1).to(mask.dtype)
