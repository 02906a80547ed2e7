"""Latents: normalisation against diffusers' own, sizes against the real VAE."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.wan.latents import check_frame_count, denormalize_latents, latent_shape, normalize_latents


@pytest.fixture(scope="module")
def vae(tiny_wan):
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(tiny_wan, subfolder="vae")


def test_the_pipelines_denormalisation_undoes_ours(vae):
    raw = torch.randn(2, 16, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 - 1
    normal = normalize_latents(raw, vae.config)
    # As written in WanPipeline.__call__, before the decoder.
    mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)
    inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)
    torch.testing.assert_close(normal / inverse_std + mean, raw, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denormalize_latents(normal, vae.config), raw, atol=1e-5, rtol=1e-5)


def test_each_channel_is_moved_by_its_own_mean_and_deviation(vae):
    mean, std = (torch.tensor(vae.config[name]) for name in ("latents_mean", "latents_std"))
    latents = (mean + 2 * std).view(16, 1, 1, 1).expand(16, 2, 3, 3)
    torch.testing.assert_close(normalize_latents(latents, vae.config), torch.full((16, 2, 3, 3), 2.0))


def test_a_batch_and_one_sample_are_normalised_alike_and_keep_their_dtype(vae):
    latents = torch.randn(16, 2, 3, 3).bfloat16()
    alone = normalize_latents(latents, vae.config)
    assert alone.dtype == torch.bfloat16
    assert torch.equal(normalize_latents(latents[None], vae.config)[0], alone)


def test_latents_of_another_vae_are_refused(vae):
    with pytest.raises(ValueError, match="48"):
        normalize_latents(torch.zeros(48, 1, 2, 2), vae.config)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 32), (5, 32, 16), (17, 48, 48)])
def test_the_shape_is_what_the_vae_gives(vae, frames, height, width):
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, frames, height, width)).latent_dist.mode()
    assert latent_shape(frames, height, width) == tuple(latents.shape[1:])


@given(st.integers(min_value=-5, max_value=500))
def test_only_4n_plus_1_frames_fit_and_the_fix_names_numbers_that_do(frames: int):
    if frames >= 1 and frames % 4 == 1:
        assert check_frame_count(frames) == frames
        return
    with pytest.raises(UserError) as caught:
        check_frame_count(frames)
    proposals = [int(word) for word in caught.value.fix.split() if word.isdigit()]
    assert len(proposals) == 2
    assert all(check_frame_count(proposal) == proposal for proposal in proposals)


@pytest.mark.parametrize(("height", "width"), [(0, 16), (16, 12), (20, 16)])
def test_a_size_that_the_vae_would_cut_is_refused(height, width):
    with pytest.raises(UserError, match="multiples of 8"):
        latent_shape(5, height, width)
