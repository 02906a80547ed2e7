"""WAN 2.2 A14B inside stock OneTrainer: both experts in one run or one alone, each on its own noise levels."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BOUNDARY = 0.7
"""Another one than the released models', so that it must have been read from the folder."""


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def model_folder(tiny_wan_two_experts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(tiny_wan_two_experts, tmp_path_factory.mktemp("model") / "wan")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index["boundary_ratio"] = BOUNDARY
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def watch(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Each call of a transformer from here on: which one, at which sigma, and which were on the training device."""
    from wan_fixes.hosts.onetrainer.wan import setup

    calls: list[SimpleNamespace] = []
    velocity = setup.BaseWanSetup._velocity

    def record(self: Any, model: Any, batch: Any, expert: Any, latents: Any, noise: Any, sigmas: Any) -> Any:
        result = velocity(self, model, batch, expert, latents, noise, sigmas)
        present = {"transformer", "transformer_2"} & model.on_train_device
        calls.append(SimpleNamespace(expert=expert, sigmas=sigmas.tolist(), present=present))
        return result

    monkeypatch.setattr(setup.BaseWanSetup, "_velocity", record)
    return calls


SIDES = {"high": "transformer", "low": "transformer_2"}


def a14b(runs: Any, model: Path, clips: Path, work: Path, **changes: Any) -> Any:
    return runs.configuration(
        model, clips, work, **({"model_type": "WAN_2_2_T2V_A14B", "timestep_shift": 3.0} | changes)
    )


@pytest.fixture(scope="module")
def both(runs: Any, model_folder: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run over both experts, with validation and samples."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = watch(monkeypatch)
        work = tmp_path_factory.mktemp("both")
        concepts = [
            {"name": "clips", "path": str(clips), "seed": 1},
            {"name": "validation", "path": str(clips), "seed": 2, "type": "VALIDATION"},
        ]
        sample = {"prompt": "a ball", "width": 64, "height": 64, "frames": 5, "diffusion_steps": 3, "cfg_scale": 1.0}
        config = a14b(
            runs,
            model_folder,
            clips,
            work,
            epochs=4,
            concepts=concepts,
            validation=True,
            validate_after=3,
            validate_after_unit="STEP",
            sample_after=2,
            sample_after_unit="EPOCH",
            samples=[sample],
            backup_before_save=True,
        )
        result = runs.train(config)
    result.work, result.calls = work, calls
    return result


def training_calls(result: Any) -> list[SimpleNamespace]:
    """Validation runs at steps 0, 3, 6, 9 over three clips, four levels of each expert."""
    return [call for call in result.calls if call.sigmas not in validation_levels(result)]


def validation_levels(result: Any) -> list[list[float]]:
    counted = Counter(tuple(call.sigmas) for call in result.calls)
    return [list(level) for level, count in counted.items() if count == 4 * 3]


def test_each_step_trains_the_expert_of_its_noise_level_and_only_that_one_is_on_the_device(both: Any) -> None:
    assert both.trainer.model.boundary_ratio == BOUNDARY
    steps = training_calls(both)
    assert len(steps) == 12
    assert {call.expert for call in steps} == {"high", "low"}
    for call in both.calls:
        assert call.present == {SIDES[call.expert]}
        assert all((sigma >= BOUNDARY) == (call.expert == "high") for sigma in call.sigmas)
    # Uniform before a shift of 3: 1 - 0.7 / (3 - 2 * 0.7) of all levels are above the boundary.
    assert sum(call.expert == "high" for call in steps) == int(12 * (1 - 0.7 / 1.6))


def test_validation_covers_both_experts_at_fixed_levels(both: Any) -> None:
    levels = [level for (level,) in validation_levels(both)]
    assert sum(level >= BOUNDARY for level in levels) == 4
    assert sum(level < BOUNDARY for level in levels) == 4


def test_both_adapters_were_trained_and_each_has_a_file_that_diffusers_loads(both: Any, model_folder: Path) -> None:
    import torch
    from diffusers import WanPipeline

    model = both.trainer.model
    files = {"transformer": "lora_high_noise.safetensors", "transformer_2": "lora_low_noise.safetensors"}
    assert {path.name for path in both.work.glob("*.safetensors")} == set(files.values())
    pipeline = WanPipeline.from_pretrained(model_folder)
    arguments = {
        "hidden_states": torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 512, 32, generator=torch.Generator().manual_seed(1)),
        "return_dict": False,
    }
    for part, name in files.items():
        with torch.no_grad():
            plain = getattr(pipeline, part)(**arguments)[0]
            second = {"load_into_transformer_2": True} if part == "transformer_2" else {}
            pipeline.load_lora_weights(both.work, weight_name=name, adapter_name=part, **second)
            adapted = getattr(pipeline, part)(**arguments)[0]
            live = getattr(model, part).eval()(**arguments)[0]
        assert (adapted - plain).abs().max() > 1e-3
        assert (adapted - live).abs().max() <= 1e-6


def test_a_run_over_both_experts_goes_on_from_its_backup_and_from_its_two_files(
    both: Any, runs: Any, model_folder: Path, clips: Path, tmp_path: Path
) -> None:
    import torch

    saved = {part: lora.state_dict() for part, lora in both.trainer.model.lora_parts()}
    backup = next((both.work / "workspace" / "backup").iterdir())
    for name in (str(backup), str(both.work / "lora.safetensors"), str(both.work / "lora_low_noise.safetensors")):
        config = a14b(runs, model_folder, clips, tmp_path, lora_model_name=name)
        from modules.util import create

        model = create.create_model_loader(config.model_type, config.training_method).load(
            config.model_type, config.model_names(), config.weight_dtypes(), config.quantization
        )
        for part, state in saved.items():
            for key in (key for key in state if key.endswith("lora_down.weight")):
                up, alpha = (key.replace("lora_down.weight", end) for end in ("lora_up.weight", "alpha"))
                both_states = (state, model.lora_state_dict)
                deltas = [s[alpha] / len(s[key]) * s[up] @ s[key] for s in both_states]
                assert torch.allclose(*deltas, atol=1e-7), (part, name)


def test_a_lora_is_converted_between_formats_without_being_trained(
    both: Any, runs: Any, model_folder: Path, clips: Path, tmp_path: Path
) -> None:
    from modules.util import create
    from modules.util.enum.ModelFormat import ModelFormat
    from modules.util.enum.TrainingMethod import TrainingMethod
    from modules.util.ModelNames import ModelNames
    from modules.util.ModelWeightDtypes import ModelWeightDtypes
    from safetensors.torch import load_file

    config = a14b(runs, model_folder, clips, tmp_path)
    model = create.create_model_loader(config.model_type, TrainingMethod.LORA).load(
        config.model_type,
        ModelNames(base_model=str(model_folder), lora=str(both.work / "lora.safetensors")),
        ModelWeightDtypes.from_single_dtype(config.transformer.weight_dtype),
        config.quantization,
    )
    saver = create.create_model_saver(config.model_type, TrainingMethod.LORA)
    saver.save(model, config.model_type, ModelFormat.COMFY_LORA, str(tmp_path / "comfy.safetensors"), None)

    for expert in ("high", "low"):
        before = load_file(both.work / f"lora_{expert}_noise.safetensors")
        after = load_file(tmp_path / f"comfy_{expert}_noise.safetensors")
        assert len([key for key in after if key.endswith("lora_A.weight")]) == len(before) / 2
        assert all(key.startswith("diffusion_model.blocks.") for key in after)


def test_one_expert_goes_on_from_its_file_while_the_other_begins_anew(
    both: Any, runs: Any, model_folder: Path, clips: Path, tmp_path: Path
) -> None:
    import torch

    shutil.copy(both.work / "lora_low_noise.safetensors", tmp_path / "old_low_noise.safetensors")
    config = a14b(
        runs,
        model_folder,
        clips,
        tmp_path,
        lora_model_name=str(tmp_path / "old_low_noise.safetensors"),
        transformer_2={"train": False},
    )
    trained = dict(runs.train(config).trainer.model.lora_parts())

    before = dict(both.trainer.model.lora_parts())
    name = next(iter(before["transformer_2"].lora_modules))
    layers = [parts["transformer_2"].lora_modules[name] for parts in (before, trained)]
    deltas = [layer.alpha / 4 * layer.lora_up.weight @ layer.lora_down.weight for layer in layers]
    assert torch.allclose(*deltas, atol=1e-7)
    assert trained["transformer"].lora_modules[name].lora_up.weight.abs().max() > 0


@pytest.mark.parametrize("left_out", ["transformer", "transformer_2"])
def test_one_expert_alone_trains_on_its_side_of_the_boundary(
    runs: Any,
    model_folder: Path,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left_out: str,
) -> None:
    calls = watch(monkeypatch)
    result = runs.train(a14b(runs, model_folder, clips, tmp_path, epochs=2, **{left_out: {"include": False}}))

    model = result.trainer.model
    assert getattr(model, left_out) is None
    (part,) = model.experts()
    assert {SIDES[call.expert] for call in calls} == {part}
    assert all((sigma >= BOUNDARY) == (part == "transformer") for call in calls for sigma in call.sigmas)
    suffix = "high" if part == "transformer" else "low"
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [f"lora_{suffix}_noise.safetensors"]


def test_an_expert_that_is_there_but_not_trained_is_never_chosen(
    runs: Any, model_folder: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = watch(monkeypatch)
    runs.train(a14b(runs, model_folder, clips, tmp_path, transformer={"train": False}))

    assert {call.expert for call in calls} == {"low"}


def test_the_expert_stays_the_same_until_the_optimizer_steps(wan_host: Path) -> None:
    from wan_fixes.hosts.onetrainer.wan.predict import choose_expert, high_noise_share

    model = SimpleNamespace(boundary_ratio=0.875)
    config = SimpleNamespace(
        timestep_shift=12.0,
        min_noising_strength=0.0,
        max_noising_strength=1.0,
        gradient_accumulation_steps=4,
        timestep_distribution=SimpleNamespace(name="UNIFORM"),
    )
    chosen = [choose_expert(model, config, ["high", "low"], step) for step in range(4000)]

    assert all(len(set(chosen[at : at + 4])) == 1 for at in range(0, 4000, 4))
    assert chosen.count("high") / 4000 == pytest.approx(high_noise_share(model, config), abs=0.001)


def test_an_expert_without_noise_levels_is_neither_trained_nor_validated(wan_host: Path) -> None:
    import torch

    from wan_fixes.errors import UserError
    from wan_fixes.hosts.onetrainer.wan.predict import bounds, choose_expert, validation_sigmas

    model = SimpleNamespace(boundary_ratio=0.9)
    config = SimpleNamespace(
        timestep_shift=5.0,
        min_noising_strength=0.0,
        max_noising_strength=0.9,
        gradient_accumulation_steps=1,
        timestep_distribution=SimpleNamespace(name="UNIFORM"),
    )
    assert {choose_expert(model, config, ["high", "low"], step) for step in range(20)} == {"low"}
    levels = validation_sigmas(model, config, ["high", "low"], torch.device("cpu"))
    assert [expert for expert, _ in levels] == ["low"]
    with pytest.raises(UserError, match="high-noise expert"):
        bounds(model, config, "high")


@pytest.mark.parametrize(("weight", "bias"), [(0.0, 0.0), (0.5, -1.0)])
def test_the_share_of_the_high_noise_expert_is_that_of_the_distribution(
    wan_host: Path, weight: float, bias: float
) -> None:
    import torch

    from wan_fixes.hosts.onetrainer.wan.predict import high_noise_share
    from wan_fixes.wan.timesteps import sample_sigmas

    model = SimpleNamespace(boundary_ratio=0.9)
    bounds = {"minimum": 0.2, "maximum": 0.98}
    for name, distribution in (("UNIFORM", "uniform"), ("LOGIT_NORMAL", "logit_normal")):
        config = SimpleNamespace(
            timestep_shift=5.0,
            min_noising_strength=bounds["minimum"],
            max_noising_strength=bounds["maximum"],
            noising_weight=weight,
            noising_bias=bias,
            timestep_distribution=SimpleNamespace(name=name),
        )
        generator = torch.Generator().manual_seed(0)
        sigmas = sample_sigmas(
            100_000, distribution=distribution, shift=5.0, **bounds, weight=weight, bias=bias, generator=generator
        )
        assert high_noise_share(model, config) == pytest.approx(float((sigmas >= 0.9).float().mean()), abs=0.01)
