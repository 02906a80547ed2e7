"""WAN that goes on from an image, in stock OneTrainer: I2V of 2.1 and 2.2, and the 5B, as diffusers samples them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

VARIANTS = {"WAN_2_1_I2V_14B": ("i2v", 1), "WAN_2_2_I2V_A14B": ("i2v", 2), "WAN_2_2_TI2V_5B": ("ti2v", 1)}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from painted import paint_frame
    from PIL import Image

    path = tmp_path_factory.mktemp("image") / "first.png"
    Image.fromarray(paint_frame(3, width=96, height=64, hue=0.4)).save(path)
    return path


@pytest.fixture(scope="module", params=VARIANTS)
def trained(
    request: pytest.FixtureRequest, runs: Any, clips: Path, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A LoRA run of a variant over clips, with a sample that begins with an image."""
    from tiny_wan import make_tiny_wan

    mode, experts = VARIANTS[request.param]
    folder = make_tiny_wan(tmp_path_factory.mktemp("models") / request.param, mode=mode, experts=experts)
    work = tmp_path_factory.mktemp("work")
    sample = {"prompt": "a ball", "width": 64, "height": 64, "frames": 5, "diffusion_steps": 2, "cfg_scale": 1.0}
    config = runs.configuration(
        folder,
        clips,
        work,
        model_type=request.param,
        epochs=2,
        sample_after=2,
        sample_after_unit="EPOCH",
        samples=[sample | {"base_image_path": str(image)}],
    )
    result = runs.train(config)
    result.folder, result.work = folder, work
    return result


def watch_steps(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Batch, inputs and outputs of every prediction from here on."""
    from wan_fixes.hosts.onetrainer.wan import setup

    steps: list[SimpleNamespace] = []
    predict, loss = setup.BaseWanSetup.predict, setup.BaseWanSetup.calculate_loss

    def record(self: Any, model: Any, batch: Any, config: Any, progress: Any, **options: Any) -> Any:
        inputs: list[Any] = []
        hooks = [
            getattr(model, part).register_forward_pre_hook(
                lambda _module, _arguments, given: inputs.append(given), with_kwargs=True
            )
            for part in model.experts()
        ]
        output = predict(self, model, batch, config, progress, **options)
        for hook in hooks:
            hook.remove()
        steps.append(SimpleNamespace(step=progress.global_step, batch=batch, inputs=inputs[0], output=output))
        return output

    def record_loss(self: Any, *arguments: Any) -> Any:
        steps[-1].loss = loss(self, *arguments)
        return steps[-1].loss

    monkeypatch.setattr(setup.BaseWanSetup, "predict", record)
    monkeypatch.setattr(setup.BaseWanSetup, "calculate_loss", record_loss)
    return steps


def reference_pipeline(trained: Any) -> Any:
    """diffusers' own image-to-video pipeline over the folder, as it was before training."""
    from diffusers import WanImageToVideoPipeline

    return WanImageToVideoPipeline.from_pretrained(trained.folder)


def test_it_trains_samples_and_saves(trained: Any) -> None:
    assert len(trained.losses) == 4
    assert all(0 < loss < 100 for loss in trained.losses)
    assert len(list((trained.work / "workspace").glob("samples/*/*.mp4"))) == 1
    assert len(list(trained.work.glob("*.safetensors"))) == len(trained.trainer.model.experts())


def test_a_sample_is_the_clip_that_the_pipeline_makes(trained: Any, image: Path, runs: Any) -> None:
    import numpy as np
    import torch
    from modules.util import create
    from PIL import Image

    config = trained.trainer.config
    model = create.create_model_loader(config.model_type, config.training_method).load(
        config.model_type, config.model_names(), config.weight_dtypes(), config.quantization
    )
    model.train_config = config
    cpu = torch.device("cpu")
    arguments = {"prompt": "a red ball", "negative_prompt": "grey", "height": 64, "width": 96, "guidance_scale": 3.0}
    picture = Image.open(image)
    sampler = create.create_model_sampler(cpu, cpu, model, config.model_type)
    clip = sampler.sample_clip(**arguments, image=picture, frames=9, seed=3, steps=3)
    expected = reference_pipeline(trained)(
        **arguments,
        image=picture,
        num_frames=9,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).frames[0]

    assert np.abs(clip.numpy().astype(int) - (expected * 255).round().astype(int)).max() <= 1


def test_the_5b_learns_the_whole_of_a_still_and_samples_without_an_image(
    runs: Any, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from tiny_wan import make_tiny_wan

    folder = make_tiny_wan(tmp_path / "model", mode="ti2v")
    stills = tmp_path / "stills"
    stills.mkdir()
    shutil.copy(image, stills)
    seen = watch_steps(monkeypatch)
    sample = {"prompt": "a ball", "width": 64, "height": 64, "frames": 5, "diffusion_steps": 2, "cfg_scale": 1.0}
    runs.train(
        runs.configuration(
            folder,
            stills,
            tmp_path,
            model_type="WAN_2_2_TI2V_5B",
            epochs=2,
            samples=[sample],
            sample_after=2,
            sample_after_unit="EPOCH",
        )
    )

    for step in seen:
        assert step.batch["latent_image"].shape[2] == 1
        assert (step.inputs["timestep"] > 0).all()
        assert step.inputs["timestep"].ndim == 2
        expected = (step.output["predicted"] - step.output["target"]).square().mean()
        assert step.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert len(list((tmp_path / "workspace").glob("samples/*/*.mp4"))) == 1


def test_an_image_that_is_needed_missing_or_of_no_use_is_said_before_any_work(wan_host: Path, image: Path) -> None:
    from wan_fixes.errors import UserError
    from wan_fixes.hosts.onetrainer.wan.sampler import read_image
    from wan_fixes.wan.variants import get_variant

    with pytest.raises(UserError, match="without an image"):
        read_image("", get_variant("WAN_2_2_I2V_A14B"))
    with pytest.raises(UserError, match="takes no image"):
        read_image(str(image), get_variant("WAN_2_1_T2V_14B"))
    with pytest.raises(UserError, match="cannot be used"):
        read_image(str(image.with_name("gone.png")), get_variant("WAN_2_2_TI2V_5B"))
    assert read_image("", get_variant("WAN_2_2_TI2V_5B")) is None
    assert read_image(str(image), get_variant("WAN_2_2_TI2V_5B")).size == (96, 64)
