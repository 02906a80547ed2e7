"""Which noise levels are trained: distributions of sigma, the timestep shift, bounds, and the two experts.

A timestep is `1000 * sigma`. The shift `s` maps sigma to `s sigma / (1 + (s - 1) sigma)`, as diffusers' flow
schedulers do (`flow_shift`, `shift`): above 1 it moves weight to high noise.
"""

from __future__ import annotations

from typing import Literal

import torch

from wan_fixes.errors import UserError

NUM_TRAIN_TIMESTEPS = 1000
"""`num_train_timesteps` of every WAN scheduler."""

Distribution = Literal["uniform", "logit_normal"]
Expert = Literal["high", "low"]

# Sigma 0 is clean data, where the velocity is undefined: nothing is drawn below this.
SMALLEST_SIGMA = 1e-5


def shift_sigmas(sigmas: torch.Tensor, shift: float) -> torch.Tensor:
    """Shifted sigmas, same shape and dtype; 0 and 1 stay where they are."""
    return shift * sigmas / (1.0 + (shift - 1.0) * sigmas)


def unshift_sigma(sigma: float, shift: float) -> float:
    """The sigma that `shift_sigmas` maps to `sigma`: `sigma / (s - (s - 1) sigma)`."""
    return sigma / (shift - (shift - 1.0) * sigma)


def sigmas_to_timesteps(sigmas: torch.Tensor) -> torch.Tensor:
    """What the transformer takes as `timestep`: `1000 * sigma`, fp32. Not rounded: WAN embeds real numbers."""
    return sigmas.float() * NUM_TRAIN_TIMESTEPS


def sample_sigmas(
    batch: int,
    *,
    distribution: Distribution = "uniform",
    shift: float = 1.0,
    minimum: float = 0.0,
    maximum: float = 1.0,
    weight: float = 0.0,
    bias: float = 0.0,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw a sigma for each sample of a batch.

    Parameters
    ----------
    distribution:
        Before the shift: `uniform`, or `logit_normal`, the logistic of a normal with mean `bias` and deviation
        `weight + 1` (OneTrainer's `noising_bias` and `noising_weight`, 0 by default), scaled into the bounds.
    shift:
        Timestep shift; 1 changes nothing.
    minimum, maximum:
        Bounds on the sigma that the model sees (OneTrainer's noising strengths). They hold after the shift: they are
        mapped back through it before drawing. Stock OneTrainer bounds before the shift, so that 0.5 at shift 3
        becomes 0.75.
    generator:
        The only source of randomness; the draw happens on its device.

    Returns
    -------
    `[batch]` fp32 in (0, 1], on the generator's device.

    Raises
    ------
    UserError
        If the bounds leave no room, the shift is not positive or the distribution is not known.
    """
    low, high = _unshifted_bounds(shift, minimum, maximum)
    device = generator.device
    if distribution == "uniform":
        unit = torch.rand(batch, generator=generator, device=device)
    elif distribution == "logit_normal":
        normal = torch.randn(batch, generator=generator, device=device)
        unit = torch.sigmoid(normal * (weight + 1.0) + bias)
    else:
        raise UserError(
            f"not a timestep distribution of WAN training: {distribution!r}",
            reason="only the distributions that keep the bounds and the shift exact are offered",
            fix="set timestep_distribution to UNIFORM or LOGIT_NORMAL",
        )
    # Rounding may step over a bound by one unit in the last place.
    return shift_sigmas(low + (high - low) * unit, shift).clamp(max(minimum, SMALLEST_SIGMA), maximum)


def stratified_sigmas(
    count: int, *, shift: float = 1.0, minimum: float = 0.0, maximum: float = 1.0, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """A fixed grid for validation: the middles of `count` equally likely strata of the shifted uniform distribution.

    `[count]` fp32, ascending, the same at every call: losses on it can be compared between steps and runs.
    """
    if count < 1:
        raise ValueError(f"{count = } must be positive")
    low, high = _unshifted_bounds(shift, minimum, maximum)
    unit = (torch.arange(count, dtype=torch.float32, device=device) + 0.5) / count
    return shift_sigmas(low + (high - low) * unit, shift).clamp(max(minimum, SMALLEST_SIGMA), maximum)


def expert_for_sigma(sigma: float, boundary: float) -> Expert:
    """Which expert denoises at `sigma`: the high-noise one from the boundary on, as in diffusers' `WanPipeline`."""
    return "high" if sigma >= boundary else "low"


def expert_bounds(
    expert: Expert, boundary: float, *, minimum: float = 0.0, maximum: float = 1.0
) -> tuple[float, float]:
    """Bounds for `sample_sigmas` within which `expert` is trained: its side of `boundary` within the user's bounds.

    Raises
    ------
    UserError
        If the user's bounds leave nothing to that expert.
    """
    low, high = (max(minimum, boundary), maximum) if expert == "high" else (minimum, min(maximum, boundary))
    if not low < high:
        raise UserError(
            f"nothing is left to train for the {expert}-noise expert",
            reason=f"the noising strength is bounded to {minimum} … {maximum}, and the experts change at {boundary}",
            fix="widen min_noising_strength and max_noising_strength, or leave that expert out",
        )
    return low, high


def _unshifted_bounds(shift: float, minimum: float, maximum: float) -> tuple[float, float]:
    if not shift > 0.0:
        raise UserError(f"timestep shift {shift} cannot be used", reason="it has to be positive", fix="1 is no shift")
    if not 0.0 <= minimum < maximum <= 1.0:
        raise UserError(
            f"noising strength from {minimum} to {maximum} cannot be used",
            reason="the bounds have to satisfy 0 ≤ minimum < maximum ≤ 1",
            fix="set min_noising_strength and max_noising_strength",
        )
    return unshift_sigma(minimum, shift), unshift_sigma(maximum, shift)
