"""Flow matching as WAN trains it: straight paths between data and noise.

With sigma in (0, 1], `x_sigma = (1 - sigma) x_0 + sigma noise`, and the model predicts the velocity
`dx/dsigma = noise - x_0`. The same as diffusers' `FlowMatchEulerDiscreteScheduler.scale_noise` and
`UniPCMultistepScheduler.add_noise` with flow sigmas.
"""

from __future__ import annotations

import torch


def add_noise(latents: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Noisy latents at `sigmas`.

    Parameters
    ----------
    latents, noise:
        `[B, C, F, H, W]`, normalised latents and standard normal noise.
    sigmas:
        `[B]` in (0, 1]: one for each sample of the batch.

    Returns
    -------
    `[B, C, F, H, W]` in the latents' dtype; mixed in fp32.
    """
    if sigmas.shape != latents.shape[:1]:
        raise ValueError(f"one sigma for each sample is needed: {sigmas.shape = }, {latents.shape = }")
    sigmas = sigmas.to(device=latents.device, dtype=torch.float32).view(-1, *[1] * (latents.ndim - 1))
    return ((1.0 - sigmas) * latents.float() + sigmas * noise.float()).to(latents.dtype)


def velocity_target(latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What the model has to predict: `noise - latents`, fp32, whatever sigma is."""
    return noise.float() - latents.float()


def flow_matching_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    loss_weight: torch.Tensor | float = 1.0,
    *,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error, averaged over each sample, weighted per sample, averaged over the batch.

    Parameters
    ----------
    prediction, target:
        `[B, C, F, H, W]`; compared in fp32.
    loss_weight:
        A number, or `[B]`: a concept's `loss_weight`. A placeholder's is 0: it adds nothing to the sum, and the
        mean still divides by B, as OneTrainer's does, so that the other samples keep their step size.
    mask:
        `[B, 1, F, H, W]` or what broadcasts to the prediction, 0 to 1: a sample's average is weighted with it, so that
        leaving a frame out does not make the others count less. A sample that is masked out whole has loss 0.

    Returns
    -------
    A scalar, fp32.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {prediction.shape = }, {target.shape = }")
    squares = (prediction.float() - target.float()).square()
    if mask is None:
        per_sample = squares.flatten(1).mean(dim=1)
    else:
        mask = mask.to(device=squares.device, dtype=torch.float32).expand_as(squares)
        total = mask.flatten(1).sum(dim=1)
        per_sample = (squares * mask).flatten(1).sum(dim=1) / total.clamp(min=torch.finfo(torch.float32).tiny)
    weight = torch.as_tensor(loss_weight, device=per_sample.device, dtype=torch.float32)
    return (per_sample * weight).mean()
