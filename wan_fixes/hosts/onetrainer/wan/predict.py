"""One training or validation step: which expert, which noise levels, what the transformer makes of them."""

from __future__ import annotations

import math
from typing import Any

import torch

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.wan.model import PART_OF, WanModel
from wan_fixes.wan.timesteps import (
    NUM_TRAIN_TIMESTEPS,
    Distribution,
    Expert,
    expert_bounds,
    sample_sigmas,
    stratified_sigmas,
    unshift_sigma,
)

VALIDATION_LEVELS = 4
"""Noise levels on which each expert is validated."""

DISTRIBUTIONS: dict[str, Distribution] = {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal"}
"""OneTrainer's timestep distributions that keep bounds and shift exact."""


def distribution(config: Any) -> Distribution:
    """The timestep distribution that a configuration names.

    Raises
    ------
    UserError
        If WAN is not trained with it.
    """
    name = config.timestep_distribution.name
    if name not in DISTRIBUTIONS:
        raise UserError(
            f"not a timestep distribution of WAN training: {name}",
            reason="only the distributions that keep the bounds and the shift exact are offered",
            fix=f"set timestep_distribution to {' or '.join(DISTRIBUTIONS)}",
        )
    return DISTRIBUTIONS[name]


def bounds(model: WanModel, config: Any, expert: Expert) -> tuple[float, float]:
    """The noise levels on which an expert is trained: the user's bounds, and with two experts its side of the boundary.

    A model with two experts of which one is left out keeps the other one on its own side.
    """
    low, high = config.min_noising_strength, config.max_noising_strength
    if model.boundary_ratio is None:
        return low, high
    return expert_bounds(expert, model.boundary_ratio, minimum=low, maximum=high)


def high_noise_share(model: WanModel, config: Any) -> float:
    """How much of the timestep distribution, shift and bounds included, is above the boundary: 0 to 1."""
    assert model.boundary_ratio is not None
    shift = config.timestep_shift
    low, high, boundary = (
        unshift_sigma(sigma, shift)
        for sigma in (config.min_noising_strength, config.max_noising_strength, model.boundary_ratio)
    )
    share = (high - boundary) / (high - low)
    if not 0.0 < share < 1.0 or distribution(config) == "uniform":
        return min(max(share, 0.0), 1.0)
    # Where the normal number lies whose logistic is on the boundary; the share is what lies above it.
    position = (math.log((1.0 - share) / share) - config.noising_bias) / (config.noising_weight + 1.0)
    return 0.5 * math.erfc(position / math.sqrt(2.0))


def choose_expert(model: WanModel, config: Any, trained: list[Expert], global_step: int) -> Expert:
    """The expert that trains at a step: of `trained`, each as often as its noise levels are drawn.

    It depends on the step alone, so that all ranks of a multi-GPU run agree, and stays the same until the optimizer
    steps: gradients must not wait on an adapter that is on its way to another device.
    """
    if len(trained) == 1:
        return trained[0]
    share = high_noise_share(model, config)
    update = global_step // config.gradient_accumulation_steps
    # The steps at which the sum of shares passes a whole number: evenly spread, and exact in the long run.
    return "high" if math.floor((update + 1) * share) > math.floor(update * share) else "low"


def training_sigmas(
    model: WanModel, config: Any, expert: Expert, batch: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw a noise level `[batch]` in (0, 1] for each sample, on the generator's device."""
    low, high = bounds(model, config, expert)
    return sample_sigmas(
        batch,
        distribution=distribution(config),
        shift=config.timestep_shift,
        minimum=low,
        maximum=high,
        weight=config.noising_weight,
        bias=config.noising_bias,
        generator=generator,
    )


def validation_sigmas(
    model: WanModel, config: Any, experts: list[Expert], device: torch.device
) -> list[tuple[Expert, torch.Tensor]]:
    """The same levels at every validation, `[VALIDATION_LEVELS]` for each of `experts` within its bounds.

    An expert to which the user's bounds leave nothing is left out, where there is another one.
    """
    levels = []
    for expert in experts:
        if len(experts) > 1 and high_noise_share(model, config) == (0.0 if expert == "high" else 1.0):
            continue
        low, high = bounds(model, config, expert)
        sigmas = stratified_sigmas(
            VALIDATION_LEVELS, shift=config.timestep_shift, minimum=low, maximum=high, device=device
        )
        levels.append((expert, sigmas))
    return levels


def expert_of(part: str) -> Expert:
    """Which expert a transformer is; the only transformer of a model counts as high, and trains on all levels."""
    return next(expert for expert, name in PART_OF.items() if name == part)


def loss_index(sigmas: torch.Tensor) -> torch.Tensor:
    """The entry in OneTrainer's table of 1000 sigmas (1/1000 to 1) for its loss weight by sigma, `[B]` int64."""
    return (sigmas * NUM_TRAIN_TIMESTEPS).round().long().clamp(1, NUM_TRAIN_TIMESTEPS) - 1
