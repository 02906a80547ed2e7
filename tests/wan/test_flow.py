"""Flow matching: noise, target and timesteps against diffusers' schedulers, which decide what is sampled."""

from __future__ import annotations

import pytest
import torch

from wan_fixes.wan.flow import add_noise, flow_matching_loss, velocity_target
from wan_fixes.wan.timesteps import sigmas_to_timesteps


@pytest.fixture
def clip_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 16, 2, 4, 4)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def euler(steps: int = 20):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    return scheduler


def unipc(steps: int = 20):
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.set_timesteps(steps)
    return scheduler


def test_noising_is_that_of_the_euler_flow_scheduler(clip_and_noise):
    clip, noise = clip_and_noise
    scheduler = euler()
    indices = [0, 7, 19]
    theirs = scheduler.scale_noise(clip, scheduler.timesteps[indices], noise)
    torch.testing.assert_close(add_noise(clip, noise, scheduler.sigmas[indices]), theirs)


def test_noising_is_that_of_the_unipc_scheduler_of_the_released_models(clip_and_noise):
    clip, noise = clip_and_noise
    scheduler = unipc()
    indices = [0, 7, 19]
    theirs = scheduler.add_noise(clip, noise, scheduler.timesteps[indices])
    torch.testing.assert_close(add_noise(clip, noise, scheduler.sigmas[indices]), theirs, atol=1e-5, rtol=1e-5)


def test_the_timesteps_are_those_that_the_schedulers_give_the_model():
    torch.testing.assert_close(sigmas_to_timesteps(euler().sigmas[:-1]), euler().timesteps)
    scheduler = unipc()  # its timesteps are whole numbers, cut off
    difference = sigmas_to_timesteps(scheduler.sigmas[:-1]) - scheduler.timesteps
    assert ((difference > -1e-2) & (difference < 1.0)).all()


def test_a_model_that_hits_the_target_walks_the_samplers_straight_path(clip_and_noise):
    clip, noise = clip_and_noise
    scheduler = euler()
    sigmas = scheduler.sigmas
    for index, timestep in enumerate(scheduler.timesteps):
        noisy = add_noise(clip, noise, sigmas[index].expand(3))
        after = scheduler.step(velocity_target(clip, noise), timestep, noisy).prev_sample
        torch.testing.assert_close(after, add_noise(clip, noise, sigmas[index + 1].expand(3)), atol=1e-5, rtol=1e-5)


def test_from_the_target_the_sampler_finds_the_clean_clip(clip_and_noise):
    clip, noise = clip_and_noise
    scheduler = unipc()
    scheduler.set_begin_index(9)
    scheduler._init_step_index(scheduler.timesteps[9])
    noisy = add_noise(clip, noise, scheduler.sigmas[9].expand(3))
    clean = scheduler.convert_model_output(velocity_target(clip, noise), sample=noisy)
    torch.testing.assert_close(clean, clip, atol=1e-5, rtol=1e-5)


def test_one_training_step_on_the_real_transformer_has_the_loss_of_the_formula(tiny_pipeline, clip_and_noise):
    clip, noise = clip_and_noise
    sigmas = torch.tensor([0.9, 0.5, 0.1])
    text = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(1))
    weight = torch.tensor([1.0, 0.0, 0.5])
    with torch.no_grad():
        noisy = add_noise(clip, noise, sigmas)
        prediction = tiny_pipeline.transformer(noisy, sigmas_to_timesteps(sigmas), text).sample
        loss = flow_matching_loss(prediction, velocity_target(clip, noise), weight)
        expected = 0.0
        for index, sigma in enumerate((0.9, 0.5, 0.1)):
            x = (1 - sigma) * clip[index] + sigma * noise[index]
            v = tiny_pipeline.transformer(x[None], torch.tensor([1000.0 * sigma]), text[index, None]).sample[0]
            expected += float(weight[index]) * float(((v - (noise[index] - clip[index])) ** 2).mean()) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_a_placeholder_moves_no_weight():
    prediction = torch.randn(2, 4, 1, 2, 2, requires_grad=True)
    flow_matching_loss(prediction, torch.zeros(2, 4, 1, 2, 2), torch.tensor([1.0, 0.0])).backward()
    assert prediction.grad[0].abs().sum() > 0
    assert prediction.grad[1].abs().sum() == 0


def test_half_precision_latents_are_mixed_in_full_precision(clip_and_noise):
    clip, noise = (tensor.bfloat16() for tensor in clip_and_noise)
    sigmas = torch.tensor([0.3, 0.6, 0.9])
    exact = add_noise(clip.float(), noise.float(), sigmas)
    assert torch.equal(add_noise(clip, noise, sigmas), exact.bfloat16())
    assert velocity_target(clip, noise).dtype == torch.float32


def test_shapes_that_would_broadcast_by_accident_are_refused(clip_and_noise):
    clip, noise = clip_and_noise
    with pytest.raises(ValueError, match="sigma"):
        add_noise(clip, noise, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="shapes"):
        flow_matching_loss(clip, noise[:1])
