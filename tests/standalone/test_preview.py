"""Sample clips: they are what WanPipeline makes, they are playable, and the model is left as it was."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from wan_fixes.errors import CriticalError
from wan_fixes.hosts.standalone.model import WanModel, load_model
from wan_fixes.hosts.standalone.preview import make_preview, sample_clip, write_mp4
from wan_fixes.pipeline.vae_lock import vae_lock
from wan_fixes.wan.lora import add_lora

CLIP = {"prompt": "a red ball", "width": 64, "height": 32, "frames": 5, "steps": 2}


@pytest.fixture
def model(tiny_wan: Path) -> WanModel:
    return load_model(tiny_wan, "WAN_2_1_T2V_1_3B")


def from_pipeline(pipeline, **options) -> np.ndarray:
    video = pipeline(
        prompt="a red ball",
        width=64,
        height=32,
        num_frames=5,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
        **options,
    ).frames[0]
    return (video * 255).round().astype(np.uint8)


def played(path: Path) -> tuple[list[av.VideoFrame], float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return list(container.decode(stream)), float(stream.average_rate)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_a_clip_is_what_the_pipeline_itself_makes(model, tiny_pipeline, guidance_scale):
    clip = sample_clip(model, **CLIP, seed=7, negative_prompt="grey", guidance_scale=guidance_scale)
    expected = from_pipeline(tiny_pipeline, negative_prompt="grey", guidance_scale=guidance_scale)
    assert clip.shape == (5, 32, 64, 3)
    assert np.array_equal(clip, expected)


def test_two_experts_both_take_part(tiny_wan_two_experts):
    from diffusers import WanPipeline

    model = load_model(tiny_wan_two_experts, "WAN_2_2_T2V_A14B")
    clip = sample_clip(model, **CLIP, seed=7)
    assert np.array_equal(clip, from_pipeline(WanPipeline.from_pretrained(tiny_wan_two_experts)))
    model.transformer_2.proj_out.weight.data.mul_(-1.0)
    assert not np.array_equal(sample_clip(model, **CLIP, seed=7), clip)


def test_the_seed_decides_and_no_other_generator_is_used(model):
    before = torch.get_rng_state()
    first = sample_clip(model, **CLIP, seed=1)
    torch.rand(3)
    assert np.array_equal(sample_clip(model, **CLIP, seed=1), first)
    assert not np.array_equal(sample_clip(model, **CLIP, seed=2), first)
    torch.set_rng_state(before)
    sample_clip(model, **CLIP)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_live_lora_shows_and_training_goes_on_as_if_nothing_had_been(model):
    base = sample_clip(model, **CLIP)
    parameters = add_lora(model.transformer, 4, 8.0, dropout=0.5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.fill_(0.05)
    model.transformer.train()
    model.transformer.blocks[1].eval()  # a mixed state has to come back as well
    modes = {name: module.training for name, module in model.transformer.named_modules()}
    weights = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    trained = sample_clip(model, **CLIP)
    assert not np.array_equal(trained, base)
    assert np.array_equal(sample_clip(model, **CLIP), trained)  # dropout was off
    assert {name: module.training for name, module in model.transformer.named_modules()} == modes
    assert not model.vae.training and not model.text_encoder.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.transformer.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in parameters)


def test_a_model_in_half_precision_is_sampled_with_its_fp32_adapter(tiny_wan):
    half = {"transformer": torch.bfloat16, "text_encoder": torch.bfloat16}
    model = load_model(tiny_wan, "WAN_2_1_T2V_1_3B", dtypes=half)
    add_lora(model.transformer, 4, 8.0)
    assert sample_clip(model, **CLIP).std() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_lies_elsewhere_is_moved_to_the_gpu_and_back(model):
    on_cpu = sample_clip(model, **CLIP)
    model.transformer.to("cuda")
    on_gpu = sample_clip(model, **CLIP)
    assert np.abs(on_gpu.astype(int) - on_cpu.astype(int)).max() <= 8
    devices = [str(part.device) for part in (model.transformer, model.vae, model.text_encoder)]
    assert devices == ["cuda:0", "cpu", "cpu"]


def test_no_other_thread_gets_the_vae_while_a_clip_is_made(model):
    """It keeps a feature cache: an encode of a loader thread would spoil both clips."""
    taken: list[bool] = []

    def try_to_take() -> None:
        taken.append(vae_lock(model.vae).acquire(blocking=False))

    def watch(*_: object) -> None:
        thread = threading.Thread(target=try_to_take)
        thread.start()
        thread.join()

    with model.vae.decoder.register_forward_pre_hook(watch), model.transformer.register_forward_pre_hook(watch):
        sample_clip(model, **CLIP)
    assert taken and not any(taken)
    try_to_take()
    assert taken[-1]


def test_a_failure_in_the_middle_leaves_the_model_as_it_was(model):
    model.transformer.train()

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with (
        model.vae.decoder.register_forward_pre_hook(fail),
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        sample_clip(model, **CLIP)
    assert model.transformer.training
    assert not model.vae.training


def test_a_model_that_has_diverged_is_told_and_nothing_is_written(model, tmp_path):
    model.transformer.proj_out.weight.data.fill_(float("nan"))
    with pytest.raises(CriticalError, match="NaN"):
        make_preview(model, tmp_path / "clip.mp4", **CLIP)
    assert list(tmp_path.iterdir()) == []


def test_the_file_plays_with_the_right_size_rate_and_number_of_frames(model, tmp_path):
    path = make_preview(model, tmp_path / "samples" / "clip.mp4", **CLIP)
    frames, rate = played(path)
    assert [(frame.width, frame.height, frame.format.name) for frame in frames] == [(64, 32, "yuv420p")] * 5
    assert rate == 16
    assert [frame.time for frame in frames] == pytest.approx([index / 16 for index in range(5)])
    assert list(path.parent.iterdir()) == [path]


def test_colours_are_written_as_bt709_and_say_so(tmp_path):
    colours = np.array([(200, 0, 0), (0, 150, 0), (30, 60, 220), (255, 255, 255), (0, 0, 0)], dtype=np.uint8)
    clip = np.broadcast_to(colours[:, None, None], (5, 32, 32, 3))
    frames, _ = played(write_mp4(tmp_path / "clip.mp4", clip, fps=24))
    # ITU-R BT.709, 8 bit, limited range
    matrix = np.array([(0.2126, 0.7152, 0.0722), (-0.114572, -0.385428, 0.5), (0.5, -0.454153, -0.045847)])
    expected = (colours / 255) @ matrix.T * (219, 224, 224) + (16, 128, 128)
    for frame, planes in zip(frames, expected, strict=True):
        measured = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[4, 4] for plane in frame.planes]
        assert measured == pytest.approx(planes, abs=2)
        assert frame.colorspace == 1


def test_a_clip_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    path = write_mp4(tmp_path / "clip.mp4", np.zeros((1, 32, 32, 3), np.uint8), fps=16)
    earlier = path.read_bytes()
    with pytest.raises(CriticalError, match="cannot be written") as caught:
        write_mp4(path, np.zeros((1, 31, 33, 3), np.uint8), fps=16)  # yuv420p needs even sizes
    assert caught.value.path == str(path)
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "samples").write_text("in the way", encoding="utf-8")
    with pytest.raises(CriticalError, match="samples"):
        write_mp4(tmp_path / "samples" / "clip.mp4", np.zeros((1, 32, 32, 3), np.uint8), fps=16)
