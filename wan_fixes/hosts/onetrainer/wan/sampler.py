"""Samples while training: an mp4 at the model's frame rate, or a still where one frame is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.video_processor import VideoProcessor
from modules.modelSampler.BaseModelSampler import BaseModelSampler, ModelSamplerOutput
from modules.util.enum.FileType import FileType
from PIL import Image
from tqdm import tqdm

from wan_fixes.errors import CriticalError, SampleError, UserError
from wan_fixes.hosts.onetrainer.wan.conditions import transformer_inputs
from wan_fixes.hosts.onetrainer.wan.model import PART_OF, WanModel
from wan_fixes.media import load_image
from wan_fixes.wan.conditioning import (
    condition_video,
    encode_condition,
    encode_images,
    first_frame_mask,
    keep_first_frame,
)
from wan_fixes.wan.latents import denormalize_latents, latent_shape
from wan_fixes.wan.timesteps import NUM_TRAIN_TIMESTEPS, expert_for_sigma
from wan_fixes.wan.variants import WanVariant


class WanSampler(BaseModelSampler):
    """The steps of diffusers' `WanPipeline`, with one part at a time on the training device."""

    def __init__(self, train_device: torch.device, temp_device: torch.device, model: WanModel, model_type: Any) -> None:
        super().__init__(train_device, temp_device)
        self.model = model
        self.model_type = model_type

    def sample(
        self,
        sample_config: Any,
        destination: str,
        image_format: Any = None,
        video_format: Any = None,
        audio_format: Any = None,
        on_sample: Callable[[Any], None] = lambda _: None,
        on_update_progress: Callable[[int, int], None] = lambda _, __: None,
    ) -> None:
        variant = self.model.variant
        image = read_image(sample_config.base_image_path, variant)
        clip = self.sample_clip(
            image=image,
            prompt=sample_config.prompt,
            negative_prompt=sample_config.negative_prompt,
            height=self.quantize_resolution(sample_config.height, variant.spatial_multiple),
            width=self.quantize_resolution(sample_config.width, variant.spatial_multiple),
            frames=self.quantize_resolution(sample_config.frames - 1, variant.temporal_compression) + 1,
            seed=None if sample_config.random_seed else sample_config.seed,
            steps=sample_config.diffusion_steps,
            guidance_scale=sample_config.cfg_scale,
            on_update_progress=on_update_progress,
        )
        if len(clip) == 1:
            output = ModelSamplerOutput(file_type=FileType.IMAGE, data=Image.fromarray(clip[0].numpy()))
        else:
            output = ModelSamplerOutput(file_type=FileType.VIDEO, data=clip)
        self.save_sampler_output(output, destination, image_format, video_format, audio_format, fps=variant.fps)
        on_sample(output)

    @torch.no_grad()
    def sample_clip(
        self,
        *,
        prompt: str,
        negative_prompt: str,
        height: int,
        width: int,
        frames: int,
        seed: int | None,
        steps: int,
        guidance_scale: float,
        image: Image.Image | None = None,
        on_update_progress: Callable[[int, int], None] = lambda _, __: None,
    ) -> torch.Tensor:
        """A clip, uint8 `[F, H, W, 3]` on the CPU.

        Parameters
        ----------
        seed:
            Of the starting noise; None draws one.
        guidance_scale:
            1 leaves the negative prompt out, and takes half the time.
        image:
            The first frame, in any size: needed for I2V, possible for the 5B.

        Raises
        ------
        CriticalError
            If the model makes NaN.
        """
        model = self.model
        generator = torch.Generator()  # on the CPU: the same noise on every device
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        model.materialize_only("text_encoder")
        prompts = [prompt, negative_prompt] if guidance_scale > 1.0 else [prompt]
        embeddings = model.encode_text(text=prompts).to(self.train_device)
        config = model.vae.config
        shape = latent_shape(
            frames,
            height,
            width,
            channels=config.z_dim,
            spatial_compression=config.scale_factor_spatial,
            temporal_compression=config.scale_factor_temporal,
        )
        latents = torch.randn((1, *shape), generator=generator).to(self.train_device)
        condition = self._condition(image, frames, height, width)
        latents = self._denoise(latents, embeddings, condition, steps, guidance_scale, on_update_progress)
        model.materialize_only("vae")
        raw = denormalize_latents(latents, config).to(model.vae.dtype)
        video = model.vae.decode(raw, return_dict=False)[0][0].float()
        if not video.isfinite().all():
            raise CriticalError(
                "the model makes no picture any more",
                reason="its output is not a number (NaN)",
                fix="train again from an earlier backup, with a lower learning rate",
                module="sampler",
            )
        pixels = (video * 0.5 + 0.5).clamp(0, 1) * 255.0
        return pixels.round().to(torch.uint8).permute(1, 2, 3, 0).cpu()

    def _condition(
        self, image: Image.Image | None, frames: int, height: int, width: int
    ) -> dict[str, torch.Tensor | None]:
        """What `transformer_inputs` takes of a first frame."""
        model = self.model
        if image is None:
            return {}
        model.materialize_only(*model.sample_encoders())
        processor = VideoProcessor(vae_scale_factor=model.vae.config.scale_factor_spatial)
        first = processor.preprocess(image, height=height, width=width).float()
        video = first[:, :, None] if model.variant.mode == "ti2v" else condition_video(first, frames)
        embeds = None
        if model.image_encoder is not None:
            # CLIP crops the picture itself: it gets it as it is, and not at the clip's size.
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
            embeds = encode_images(model.image_processor, model.image_encoder, pixels.float() / 127.5 - 1.0)
        return {"condition": encode_condition(model.vae, video), "image_embeds": embeds}

    def _denoise(
        self,
        latents: torch.Tensor,
        embeddings: torch.Tensor,
        condition: dict[str, torch.Tensor | None],
        steps: int,
        guidance_scale: float,
        on_update_progress: Callable[[int, int], None],
    ) -> torch.Tensor:
        model = self.model
        dtype = model.train_dtype.torch_dtype()
        # A scheduler keeps state while sampling, so that each clip gets its own.
        scheduler = type(model.noise_scheduler).from_config(model.noise_scheduler.config)
        scheduler.set_timesteps(steps, device=self.train_device)
        timesteps = scheduler.timesteps
        model.materialize_only(self._part_at(timesteps[0]))
        for index, timestep in enumerate(tqdm(timesteps, desc="sampling")):
            transformer = model.activate(self._part_at(timestep))
            inputs = transformer_inputs(model, transformer, latents.to(dtype), timestep.expand(1), **condition)
            with model.autocast_context:
                velocities = [
                    transformer(**inputs, encoder_hidden_states=embedding[None].to(dtype), return_dict=True)
                    for embedding in embeddings
                ]
            velocity, *unguided = [output.sample.float() for output in velocities]
            if unguided:
                velocity = unguided[0] + guidance_scale * (velocity - unguided[0])
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            on_update_progress(index + 1, len(timesteps))
        given = condition.get("condition")
        if given is not None and model.variant.mode == "ti2v":
            return keep_first_frame(latents, given, first_frame_mask(latents))
        return latents

    def _part_at(self, timestep: torch.Tensor) -> str:
        """The expert for a timestep; where only one was loaded, that one for all of them."""
        present = self.model.experts()
        if len(present) == 1 or self.model.boundary_ratio is None:
            return present[0]
        return PART_OF[expert_for_sigma(float(timestep) / NUM_TRAIN_TIMESTEPS, self.model.boundary_ratio)]


def read_image(path: str, variant: WanVariant) -> Image.Image | None:
    """The picture that a sample begins with; None where there is none.

    Raises
    ------
    UserError
        If an I2V model has none, a T2V model has one, or it cannot be read.
    """
    if not path.strip():
        if variant.mode == "i2v":
            raise UserError(
                f"{variant.label} cannot make a sample without an image",
                reason="it goes on from a first frame",
                fix="set the sample's base_image_path",
            )
        return None
    if variant.mode == "t2v":
        raise UserError(
            f"{variant.label} takes no image",
            path=path,
            reason="it makes clips of text alone",
            fix="empty the sample's base_image_path, or train an image-to-video model",
        )
    try:
        return Image.fromarray(load_image(path))
    except SampleError as error:
        raise UserError(
            "the sample's image cannot be used", path=path, reason=error.reason, fix="name another base_image_path"
        ) from error
