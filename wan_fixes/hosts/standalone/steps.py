"""One training step: noise, loss, learning rate, optimizer.

All of it is a function of the seed and the step, so that a resumed run is the run that was not interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import xxhash

from wan_fixes.hosts.standalone.preset import OptimizerSettings, Preset
from wan_fixes.wan.flow import add_noise, flow_matching_loss, velocity_target
from wan_fixes.wan.latents import normalize_latents
from wan_fixes.wan.timesteps import sample_sigmas, sigmas_to_timesteps

_DISTRIBUTIONS: dict[str, Any] = {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal"}


def step_seed(seed: int, micro_step: int, purpose: str) -> int:
    """The seed of one kind of random numbers in one batch, in the range that torch takes."""
    return xxhash.xxh3_64_intdigest(f"{seed}/{micro_step}/{purpose}".encode()) >> 1


def step_generator(seed: int, micro_step: int, purpose: str) -> torch.Generator:
    """A generator on the CPU, whatever trains: every device gets the same numbers."""
    return torch.Generator().manual_seed(step_seed(seed, micro_step, purpose))


def draw_sigmas(preset: Preset, batch: int, micro_step: int) -> torch.Tensor:
    """The noise level of each sample of a batch, ``[batch]`` fp32 in (0, 1]."""
    return sample_sigmas(
        batch,
        distribution=_DISTRIBUTIONS[preset.timestep_distribution],
        shift=preset.timestep_shift,
        minimum=preset.min_noising_strength,
        maximum=preset.max_noising_strength,
        weight=preset.noising_weight,
        bias=preset.noising_bias,
        generator=step_generator(preset.seed, micro_step, "sigmas"),
    )


def drop_captions(
    preset: Preset, embeddings: torch.Tensor, empty: torch.Tensor | None, micro_step: int
) -> torch.Tensor:
    """Text embeddings ``[B, 512, D]`` with those of some samples replaced by the empty prompt's ``[512, D]``."""
    if empty is None:
        return embeddings
    generator = step_generator(preset.seed, micro_step, "captions")
    dropped = torch.rand(len(embeddings), generator=generator) < preset.caption_dropout
    return torch.where(dropped[:, None, None].to(embeddings.device), empty.to(embeddings), embeddings)


def velocity(transformer: Any, noisy: torch.Tensor, sigmas: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """What the transformer predicts for latents ``[B, C, F, H, W]`` at noise levels ``[B]``, in the same shape."""
    dtype = transformer.patch_embedding.weight.dtype
    return transformer(
        hidden_states=noisy.to(dtype),
        timestep=sigmas_to_timesteps(sigmas).to(noisy.device),
        encoder_hidden_states=embeddings.to(dtype),
        return_dict=False,
    )[0]


def batch_loss(
    preset: Preset,
    transformer: Any,
    vae_config: Any,
    batch: dict[str, Any],
    empty: torch.Tensor | None,
    micro_step: int,
    device: torch.device,
) -> torch.Tensor:
    """The loss of one batch as the pipeline gives it, a scalar in fp32 with a graph behind it."""
    latents = normalize_latents(batch["latent_image"].to(device).float(), vae_config)
    noise = torch.randn(latents.shape, generator=step_generator(preset.seed, micro_step, "noise")).to(device)
    sigmas = draw_sigmas(preset, len(latents), micro_step)
    embeddings = drop_captions(preset, batch["text_encoder_hidden_state"].to(device), empty, micro_step)
    torch.manual_seed(step_seed(preset.seed, micro_step, "dropout"))  # LoRA dropout draws from the global generator
    prediction = velocity(transformer, add_noise(latents, noise, sigmas), sigmas, embeddings)
    return flow_matching_loss(prediction, velocity_target(latents, noise), batch["loss_weight"].to(device))


def make_optimizer(settings: OptimizerSettings, parameters: Sequence[torch.nn.Parameter], rate: float) -> Any:
    """The optimizer that the preset names."""
    if settings.name == "SGD":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=settings.momentum,
            dampening=settings.dampening,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
    kind = torch.optim.AdamW if settings.name == "ADAMW" else torch.optim.Adam
    return kind(
        parameters,
        lr=rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        amsgrad=settings.amsgrad,
    )


def learning_rate_factor(preset: Preset, step: int, total_steps: int) -> float:
    """What the learning rate is multiplied by at update `step` of `total_steps`, as OneTrainer schedules it.

    Warm-up rises from 0; then CONSTANT stays at 1, LINEAR and COSINE fall to ``learning_rate_min_factor``.
    """
    warmup = preset.learning_rate_warmup_steps
    warmup_steps = int(warmup / preset.gradient_accumulation_steps) if warmup > 1 else int(warmup * total_steps)
    if step < warmup_steps:
        return step / warmup_steps
    if preset.learning_rate_scheduler == "CONSTANT":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    falling = (
        1.0 - progress if preset.learning_rate_scheduler == "LINEAR" else 0.5 * (1.0 + math.cos(math.pi * progress))
    )
    return preset.learning_rate_min_factor + (1.0 - preset.learning_rate_min_factor) * falling
