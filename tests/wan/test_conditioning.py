"""Conditioning: what the transformer is given equals what diffusers' pipelines give it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.wan.conditioning import (
    add_condition,
    condition_video,
    encode_condition,
    encode_images,
    first_frame_mask,
    image_condition,
    keep_first_frame,
    token_timesteps,
)
from wan_fixes.wan.flow import flow_matching_loss

SIZE, FRAMES = 64, 9


class Stop(Exception):
    """Raised once the first call has been seen: nothing after it is asked about."""


def picture() -> torch.Tensor:
    """Coloured stripes as 8-bit numbers, `[3, SIZE, SIZE]`, different in every direction."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")[0]
    return (smooth * 255).round().to(torch.uint8)


def as_image(pixels: torch.Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def as_frame(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 127.5 - 1.0


def capture(pipeline: Any, noise: torch.Tensor, *, part: str = "transformer", steps: int = 1) -> SimpleNamespace:
    """What `part` of an image-to-video pipeline is given at its first call, from pipeline's own preparation."""
    seen = {}

    def look(module, args, kwargs):
        seen.update(kwargs)
        raise Stop

    handle = getattr(pipeline, part).register_forward_pre_hook(look, with_kwargs=True)
    try:
        with pytest.raises(Stop):
            pipeline(
                image=as_image(picture()),
                prompt="a red ball",
                height=SIZE,
                width=SIZE,
                num_frames=FRAMES,
                num_inference_steps=steps,
                guidance_scale=1.0,
                latents=noise,
                output_type="latent",
            )
    finally:
        handle.remove()
    return SimpleNamespace(**seen)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def load(folder) -> Any:
    from diffusers import WanImageToVideoPipeline

    pipeline = WanImageToVideoPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def i2v(tiny_wan_i2v):
    return load(tiny_wan_i2v)


@pytest.fixture(scope="module")
def i2v_two_experts(tiny_wan_i2v_two_experts):
    return load(tiny_wan_i2v_two_experts)


@pytest.fixture(scope="module")
def ti2v(tiny_wan_ti2v):
    return load(tiny_wan_ti2v)


def our_i2v_input(pipeline: Any, noise: torch.Tensor) -> torch.Tensor:
    video = condition_video(as_frame(picture())[None], FRAMES)
    return add_condition(noise, image_condition(encode_condition(pipeline.vae, video)))


def test_i2v_of_2_1_is_given_mask_latents_and_clips_view_of_the_image(i2v):
    noise = normal(1, 16, 3, 8, 8)
    given_ = capture(i2v, noise)
    ours = our_i2v_input(i2v, noise)
    assert ours.shape == (1, 36, 3, 8, 8)
    assert difference(ours, given_.hidden_states) <= 1e-6
    embeddings = encode_images(i2v.image_processor, i2v.image_encoder, as_frame(picture())[None])
    assert difference(embeddings, given_.encoder_hidden_states_image) == 0
    assert given_.timestep.shape == (1,)
    assert given_.encoder_hidden_states.shape[1] == 512  # where WAN's attention cuts image from text


@pytest.mark.parametrize(("part", "steps"), [("transformer", 1), ("transformer_2", 4)])
def test_both_experts_of_2_2_are_given_mask_and_latents_alone(i2v_two_experts, part, steps):
    noise = normal(1, 16, 3, 8, 8)
    given_ = capture(i2v_two_experts, noise, part=part, steps=steps)
    ours = our_i2v_input(i2v_two_experts, noise)
    assert difference(ours[:, 16:], given_.hidden_states[:, 16:]) <= 1e-6
    assert given_.encoder_hidden_states_image is None
    if part == "transformer":  # the other one is given noise that was worked on
        assert difference(ours, given_.hidden_states) <= 1e-6


def test_the_5b_is_given_a_clean_first_frame_and_timesteps_per_token(ti2v):
    noise = normal(1, 48, 3, 4, 4)
    given_ = capture(ti2v, noise)
    first = encode_condition(ti2v.vae, as_frame(picture())[None, :, None])
    mask = first_frame_mask(noise)
    assert difference(keep_first_frame(noise, first, mask), given_.hidden_states) <= 1e-6
    step = ti2v.scheduler.timesteps[:1]
    assert difference(token_timesteps(step, mask), given_.timestep) == 0
    assert given_.timestep.shape == (1, 3 * 2 * 2)
    assert given_.timestep[0, :4].abs().max() == 0 and given_.timestep[0, 4:].min() == step
    assert ti2v.transformer(**{**vars(given_), "return_dict": False})[0].shape == noise.shape


def test_without_an_image_the_5b_is_given_what_the_text_pipeline_gives(tiny_wan_ti2v):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(tiny_wan_ti2v)
    noise = normal(1, 48, 3, 4, 4)
    seen = {}

    def look(module, args, kwargs):
        seen.update(kwargs)
        raise Stop

    pipeline.transformer.register_forward_pre_hook(look, with_kwargs=True)
    with pytest.raises(Stop):
        pipeline(prompt="a red ball", height=SIZE, width=SIZE, num_frames=FRAMES, num_inference_steps=1, latents=noise)
    mask = first_frame_mask(noise, torch.tensor([False]))
    assert difference(keep_first_frame(noise, torch.zeros_like(noise), mask), seen["hidden_states"]) == 0
    assert difference(token_timesteps(pipeline.scheduler.timesteps[:1], mask), seen["timestep"]) == 0


@pytest.mark.parametrize("name", ["i2v", "ti2v"])
def test_the_condition_of_the_first_frame_is_the_clips_own_first_latent(request, name):
    """So a cached clip brings its condition for TI2V along, as long as the mode was cached and no sample."""
    vae = request.getfixturevalue(name).vae
    video = condition_video(as_frame(picture())[None], FRAMES)
    video[:, :, 1:] = normal(1, 3, FRAMES - 1, SIZE, SIZE).clamp(-1, 1)
    assert difference(encode_condition(vae, video)[:, :, :1], encode_condition(vae, video[:, :, :1])) <= 1e-6


def test_each_sample_of_a_batch_gets_its_own_condition(i2v):
    frames = torch.stack([as_frame(picture()), -as_frame(picture())])
    together = encode_condition(i2v.vae, condition_video(frames, FRAMES))
    apart = [encode_condition(i2v.vae, condition_video(frame[None], FRAMES)) for frame in frames]
    assert difference(together, torch.cat(apart)) <= 1e-5  # the convolution sums in another order
    embeddings = encode_images(i2v.image_processor, i2v.image_encoder, frames)
    assert difference(embeddings[:1], encode_images(i2v.image_processor, i2v.image_encoder, frames[:1])) <= 1e-5
    assert difference(embeddings[0], embeddings[1]) > 1e-2


@given(
    frames=st.integers(0, 5).map(lambda n: 4 * n + 1), height=st.integers(1, 3), lead=st.lists(st.just(2), max_size=2)
)
def test_a_condition_is_the_image_and_then_gray(frames, height, lead):
    image = normal(*lead, 3, height, 2)
    video = condition_video(image, frames)
    assert video.shape == (*lead, 3, frames, height, 2)
    assert torch.equal(video[..., 0, :, :], image)
    assert not video[..., 1:, :, :].any()


def test_a_number_of_frames_that_wan_cannot_take_is_refused():
    with pytest.raises(UserError, match="6 frames"):
        condition_video(torch.zeros(3, 8, 8), 6)


@settings(max_examples=30)
@given(batch=st.integers(1, 3), frames=st.integers(1, 4), size=st.integers(1, 3), data=st.data())
def test_mask_timesteps_and_clean_frame_agree_for_any_mix_of_samples(batch, frames, size, data):
    conditioned = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    noisy, latents = normal(batch, 2, frames, 2 * size, 2 * size), normal(batch, 2, frames, 2 * size, 2 * size, seed=1)
    timesteps = torch.rand(batch, generator=torch.Generator().manual_seed(2)) * 999 + 1
    mask = first_frame_mask(noisy, conditioned)
    mixed, tokens = keep_first_frame(noisy, latents, mask), token_timesteps(timesteps, mask)
    assert tokens.shape == (batch, frames * size * size)
    for index in range(batch):
        kept = bool(conditioned[index])
        assert torch.equal(mixed[index, :, 0], (latents if kept else noisy)[index, :, 0])
        assert torch.equal(mixed[index, :, 1:], noisy[index, :, 1:])
        first, rest = tokens[index, : size * size], tokens[index, size * size :]
        assert torch.all(first == (0.0 if kept else timesteps[index]))
        assert torch.all(rest == timesteps[index])


def test_a_kept_first_frame_has_no_part_in_the_loss_and_the_others_count_in_full():
    prediction = normal(2, 4, 3, 2, 2).requires_grad_()
    target = normal(2, 4, 3, 2, 2, seed=1)
    mask = first_frame_mask(prediction, torch.tensor([True, False]))
    loss = flow_matching_loss(prediction, target, torch.tensor([0.5, 1.0]), mask=mask)
    squares = (prediction - target).square()
    assert loss.item() == pytest.approx((0.5 * squares[0, :, 1:].mean() + squares[1].mean()).item() / 2, rel=1e-6)
    loss.backward()
    assert not prediction.grad[0, :, 0].any()
    assert prediction.grad[1, :, 0].all() and prediction.grad[0, :, 1:].all()


def test_a_single_kept_frame_leaves_nothing_to_learn_and_a_loss_that_is_finite():
    prediction = normal(1, 4, 1, 2, 2).requires_grad_()
    loss = flow_matching_loss(prediction, torch.zeros_like(prediction), mask=first_frame_mask(prediction))
    loss.backward()
    assert loss.item() == 0.0
    assert not prediction.grad.any()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        add_condition(torch.zeros(1, 16, 3, 8, 8), torch.zeros(1, 20, 2, 8, 8))
    with pytest.raises(ValueError, match="one timestep"):
        token_timesteps(torch.zeros(2), torch.ones(1, 1, 3, 8, 8))
