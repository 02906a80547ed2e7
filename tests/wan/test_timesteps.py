"""Which sigmas are drawn: their distribution, the shift, the bounds, and the experts' shares."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.wan.timesteps import (
    expert_bounds,
    expert_for_sigma,
    sample_sigmas,
    shift_sigmas,
    stratified_sigmas,
    unshift_sigma,
)

DRAWS = 20_000
# Kolmogorov-Smirnov: a right sampler passes 1.95 / sqrt(n) 999 times in 1000; the seed is fixed besides.
LARGEST_DISTANCE = 1.95 / math.sqrt(DRAWS)

shifts = st.floats(min_value=0.2, max_value=15.0)
bounds = st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)).filter(lambda pair: pair[1] - pair[0] > 1e-3)
distributions = st.sampled_from(["uniform", "logit_normal"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(sigmas: torch.Tensor, cdf) -> float:
    """Largest distance between the drawn distribution and the analytic one."""
    ordered = sorted(sigmas.double().tolist())
    return max(max(abs(cdf(x) - i / len(ordered)), abs(cdf(x) - (i + 1) / len(ordered))) for i, x in enumerate(ordered))


def uniform_cdf(x: float, shift: float, low: float, high: float) -> float:
    before = [value / (shift - (shift - 1) * value) for value in (x, low, high)]
    return (before[0] - before[1]) / (before[2] - before[1])


def logit_normal_cdf(x: float, shift: float, low: float, high: float, weight: float, bias: float) -> float:
    unit = min(max(uniform_cdf(x, shift, low, high), 1e-12), 1 - 1e-12)
    z = (math.log(unit / (1 - unit)) - bias) / (weight + 1)
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.7), (0.875, 1.0)])
def test_uniform_sigmas_have_the_shifted_uniform_distribution_within_the_bounds(shift, low, high):
    sigmas = sample_sigmas(DRAWS, shift=shift, minimum=low, maximum=high, generator=seeded())
    assert distance(sigmas, lambda x: uniform_cdf(x, shift, low, high)) < LARGEST_DISTANCE


@pytest.mark.parametrize(("weight", "bias"), [(0.0, 0.0), (0.5, -0.7)])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.7)])
def test_logit_normal_sigmas_have_onetrainers_distribution_within_the_bounds(weight, bias, low, high):
    sigmas = sample_sigmas(
        DRAWS,
        distribution="logit_normal",
        shift=3.0,
        minimum=low,
        maximum=high,
        weight=weight,
        bias=bias,
        generator=seeded(),
    )
    assert distance(sigmas, lambda x: logit_normal_cdf(x, 3.0, low, high, weight, bias)) < LARGEST_DISTANCE


@given(distribution=distributions, shift=shifts, limits=bounds, seed=st.integers(0, 2**32))
def test_the_bounds_hold_after_the_shift_and_sigma_is_never_zero(distribution, shift, limits, seed):
    low, high = (torch.tensor(limit, dtype=torch.float32) for limit in limits)
    sigmas = sample_sigmas(
        64, distribution=distribution, shift=shift, minimum=limits[0], maximum=limits[1], generator=seeded(seed)
    )
    assert sigmas.dtype == torch.float32
    assert ((sigmas >= low) & (sigmas <= high) & (sigmas > 0)).all()


def test_the_bounds_are_reached_and_not_moved_by_the_shift():
    sigmas = sample_sigmas(DRAWS, shift=3.0, minimum=0.0, maximum=0.5, generator=seeded())
    assert 0.499 < sigmas.max() <= 0.5  # bounded before the shift, as in stock, it would be 0.75
    assert sigmas.min() < 0.01


@given(seed=st.integers(0, 2**32), distribution=distributions)
@settings(max_examples=20)
def test_the_generator_alone_decides(seed, distribution):
    first = sample_sigmas(8, distribution=distribution, shift=3.0, generator=seeded(seed))
    before = torch.get_rng_state()
    second = sample_sigmas(8, distribution=distribution, shift=3.0, generator=seeded(seed))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, sample_sigmas(8, distribution=distribution, shift=3.0, generator=seeded(seed + 1)))


@given(sigma=st.floats(0.0, 1.0), shift=shifts)
def test_unshifting_undoes_the_shift(sigma, shift):
    shifted = shift_sigmas(torch.tensor(sigma, dtype=torch.float64), shift)
    assert 0.0 <= float(shifted) <= 1.0 + 1e-12
    assert unshift_sigma(float(shifted), shift) == pytest.approx(sigma, abs=1e-9)


def test_the_shift_is_that_of_the_released_scheduler():
    from diffusers import UniPCMultistepScheduler

    plain, shifted = (
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        for shift in (1.0, 5.0)
    )
    plain.set_timesteps(30)
    shifted.set_timesteps(30)
    torch.testing.assert_close(shift_sigmas(plain.sigmas, 5.0), shifted.sigmas, atol=2e-6, rtol=1e-5)


@given(count=st.integers(1, 50), shift=shifts, limits=bounds)
def test_the_validation_grid_is_fixed_and_puts_one_sigma_into_each_stratum(count, shift, limits):
    low, high = limits
    grid = stratified_sigmas(count, shift=shift, minimum=low, maximum=high)
    assert torch.equal(grid, stratified_sigmas(count, shift=shift, minimum=low, maximum=high))
    strata = [uniform_cdf(float(sigma), shift, low, high) * count for sigma in grid]
    assert strata == pytest.approx([index + 0.5 for index in range(count)], abs=0.05 + 1e-3 * count)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"shift": 0.0}, "timestep shift"),
        ({"shift": float("nan")}, "timestep shift"),
        ({"minimum": 0.6, "maximum": 0.6}, "noising strength"),
        ({"minimum": -0.1}, "noising strength"),
        ({"maximum": 1.1}, "noising strength"),
        ({"maximum": float("nan")}, "noising strength"),
        ({"distribution": "COS_MAP"}, "COS_MAP"),
    ],
)
def test_settings_that_cannot_work_are_named(arguments, names):
    with pytest.raises(UserError, match=names) as caught:
        sample_sigmas(4, **arguments, generator=seeded())
    assert caught.value.fix


@given(boundary=st.floats(0.05, 0.95), sigma=st.floats(0.0, 1.0))
def test_every_sigma_belongs_to_the_expert_within_whose_bounds_it_lies(boundary, sigma):
    low, high = expert_bounds(expert_for_sigma(sigma, boundary), boundary)
    assert low <= sigma <= high
    assert expert_bounds("low", boundary) == (0.0, boundary)
    assert expert_bounds("high", boundary) == (boundary, 1.0)


def test_the_boundary_itself_is_the_high_noise_experts_as_in_diffusers():
    assert expert_for_sigma(0.875, 0.875) == "high"
    assert expert_for_sigma(0.8749, 0.875) == "low"


def test_the_users_bounds_narrow_an_experts_share():
    assert expert_bounds("high", 0.875, maximum=0.95) == (0.875, 0.95)
    assert expert_bounds("low", 0.875, minimum=0.1) == (0.1, 0.875)


def test_an_expert_that_would_get_nothing_is_named():
    with pytest.raises(UserError, match="high-noise"):
        expert_bounds("high", 0.875, maximum=0.5)
    with pytest.raises(UserError, match="low-noise"):
        expert_bounds("low", 0.875, minimum=0.9)
