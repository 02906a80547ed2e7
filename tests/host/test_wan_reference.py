"""Every WAN variant, from file to loss, against a golden file that a program without our code writes beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TOLERANCE = 1e-5
"""Largest difference allowed in fp32."""

SHIFT = 5.0
LEVELS = 4
"""Fixed noise levels of each expert in validation."""


@dataclass(frozen=True)
class Case:
    """How a variant's tiny model is made, and which expert trains at two steps."""

    mode: str
    rate: int = 16
    experts: tuple[str, ...] = ("high",)
    steps: tuple[tuple[int, str], ...] = ((0, "high"), (2, "high"))


# At shift 5 about four levels in ten are the high-noise expert's, whose turn is first at step 2.
TWO: dict[str, Any] = {"experts": ("high", "low"), "steps": ((0, "low"), (2, "high"))}
CASES = {
    "WAN_2_1_T2V_1_3B": Case("t2v"),
    "WAN_2_1_T2V_14B": Case("t2v"),
    "WAN_2_1_I2V_14B": Case("i2v"),
    "WAN_2_2_T2V_A14B": Case("t2v", **TWO),
    "WAN_2_2_I2V_A14B": Case("i2v", **TWO),
    "WAN_2_2_TI2V_5B": Case("ti2v", rate=24),
}


@pytest.fixture(scope="module")
def runs(wan_host: Path) -> Any:
    """With the protections on, since stock leaves out the first frame of a clip."""
    import wan_runs

    from wan_fixes.hosts.onetrainer.import_hooks import arm
    from wan_fixes.hosts.onetrainer.patches import pipeline

    arm(pipeline.PATCHES, wan_host)
    return wan_runs


def write_clips(folder: Path, rate: int) -> SimpleNamespace:
    """Two clips without loss, in the very size and length that is trained, and their pixels and captions."""
    import numpy as np
    from clips import write_clip
    from painted import paint_frame

    folder.mkdir()
    clips = np.stack(
        [
            np.stack([paint_frame(at + 20 * number, width=64, height=64, hue=number / 2) for at in range(9)])
            for number in range(2)
        ]
    )
    captions = [f"  a caf&eacute;,  number {number} " for number in range(2)]
    for number, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        path = folder / f"{number}.mkv"
        write_clip(path, clip, encoder="libx264rgb", rate=rate, pixel_format="rgb24", options={"qp": "0"})
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    np.save(folder.with_suffix(".npy"), clips)
    return SimpleNamespace(folder=folder, pixels=folder.with_suffix(".npy"), captions=captions)


def write_golden(request: dict[str, Any], work: Path) -> dict[str, Any]:
    """Run `wan_reference.py` where nothing of ours can be imported from."""
    from safetensors.torch import load_file

    (work / "request.json").write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-I", str(Path(__file__).with_name("wan_reference.py"))]
    subprocess.run([*command, str(work / "request.json"), str(work / "golden.safetensors")], check=True, timeout=300)
    return load_file(work / "golden.safetensors")


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, runs: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The golden file of a variant, and after it a trainer that is ready for its first step, with its one batch."""
    from modules.util import create
    from modules.util.callbacks.TrainCallbacks import TrainCallbacks
    from modules.util.commands.TrainCommands import TrainCommands
    from tiny_wan import make_tiny_wan

    from wan_fixes.hosts.onetrainer import training

    case = CASES[request.param]
    work = tmp_path_factory.mktemp(request.param)
    model = make_tiny_wan(work / "model", mode=case.mode, experts=len(case.experts))
    clips = write_clips(work / "clips", case.rate)
    golden = write_golden(
        {
            "model": str(model),
            "clips": str(clips.pixels),
            "captions": clips.captions,
            "shift": SHIFT,
            "levels": LEVELS,
            "experts": case.experts,
            "steps": case.steps,
        },
        work,
    )
    config = runs.configuration(
        model, clips.folder, work, model_type=request.param, batch_size=2, timestep_shift=SHIFT, frames="9"
    )
    trainer = create.create_trainer(config, TrainCallbacks(), TrainCommands())
    trainer.start()
    trainer.data_loader.get_data_set().start_next_epoch()
    trainer.model_setup.setup_train_device(trainer.model, config)
    (batch,) = trainer.data_loader.get_data_loader()
    yield SimpleNamespace(
        golden=golden,
        case=case,
        config=config,
        model=trainer.model,
        setup=trainer.model_setup,
        batch=batch,
        order=[int(Path(path).stem) for path in batch["image_path"]],
    )
    training.close_current()


def golden_batch(made: SimpleNamespace, name: str) -> Any:
    """What the golden file has of the clips, in the batch's order."""
    import torch

    return torch.cat([made.golden[f"clip{number}/{name}"] for number in made.order])


def predict(made: SimpleNamespace, step: int, **options: Any) -> SimpleNamespace:
    """One prediction and its loss, and what the transformers were given."""
    import torch
    from modules.util.TrainProgress import TrainProgress

    given: list[Any] = []
    hooks = [
        getattr(made.model, part).register_forward_pre_hook(
            lambda _module, _arguments, options: given.append(options), with_kwargs=True
        )
        for part in made.model.experts()
    ]
    with torch.no_grad():
        output = made.setup.predict(made.model, made.batch, made.config, TrainProgress(global_step=step), **options)
        loss = made.setup.calculate_loss(made.model, made.batch, output, made.config)
    for hook in hooks:
        hook.remove()
    names = ("hidden_states", "timestep")
    inputs = {name: torch.cat([options[name] for options in given]) for name in names}
    return SimpleNamespace(**inputs, velocity=output["predicted"], target=output["target"], loss=loss)


def assert_equal(found: Any, expected: Any, what: str, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape, what
    assert float((found - expected).abs().max()) <= tolerance, what


def assert_as_golden(made: SimpleNamespace, found: SimpleNamespace, name: str) -> None:
    place = f"{name}/{''.join(map(str, made.order))}"
    # A timestep of 1000 is known to 6e-5 in fp32.
    assert_equal(found.timestep, made.golden[f"{place}/timestep"], "timestep", 1e-4)
    for what in ("hidden_states", "velocity", "target", "loss"):
        assert_equal(getattr(found, what), made.golden[f"{place}/{what}"], what)


def test_cached_latents_and_captions_are_those_of_the_reference(made: SimpleNamespace) -> None:
    assert_equal(made.batch["latent_image"], golden_batch(made, "raw_latents"), "latents")
    assert_equal(made.batch["text_encoder_hidden_state"], golden_batch(made, "text"), "text")


def test_cached_conditions_are_those_of_the_reference(made: SimpleNamespace) -> None:
    if made.case.mode != "i2v":
        assert not {"latent_condition", "image_embeds"} & set(made.batch)
        return
    # The four channels before it are the mask, which is made for each step: hidden_states has them.
    assert_equal(made.batch["latent_condition"], golden_batch(made, "condition")[:, 4:], "condition")
    assert ("image_embeds" in made.batch) == ("clip0/image" in made.golden)
    if "image_embeds" in made.batch:
        assert_equal(made.batch["image_embeds"], golden_batch(made, "image"), "image")


@pytest.mark.parametrize("at", [0, 1])
def test_velocity_and_loss_of_a_step_are_those_of_the_reference(made: SimpleNamespace, at: int) -> None:
    step, _ = made.case.steps[at]
    assert_as_golden(made, predict(made, step), f"step{step}")


@pytest.mark.parametrize("step", [0, 5])
def test_validation_is_that_of_the_reference_at_every_level_of_every_expert(made: SimpleNamespace, step: int) -> None:
    found = predict(made, step, deterministic=True)
    assert len(found.velocity) == LEVELS * len(made.case.experts) * len(made.order)
    assert_as_golden(made, found, "validation")
