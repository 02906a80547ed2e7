"""WAN through stock's `convert_model.py` and `calculate_loss.py`, as their own code runs, and what they cannot do."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

MODELS = {
    "WAN_2_1_T2V_1_3B": "tiny_wan",
    "WAN_2_1_I2V_14B": "tiny_wan_i2v",
    "WAN_2_2_T2V_A14B": "tiny_wan_two_experts",
    "WAN_2_2_I2V_A14B": "tiny_wan_i2v_two_experts",
    "WAN_2_2_TI2V_5B": "tiny_wan_ti2v",
}
"""Fixtures with a tiny model of each kind; 2.1's 14B text-to-video differs from the 1.3B by its name alone."""

LORA_FORMATS = ["DIFFUSERS_LORA", "KOHYA_LORA", "ORIGINAL_LORA", "COMFY_LORA"]


@pytest.fixture
def script(runs: Any, wan_host: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a script of the checkout with arguments."""

    def run(name: str, **arguments: Any) -> None:
        words = [word for key, value in arguments.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        monkeypatch.setattr("sys.argv", [name, *words])
        monkeypatch.syspath_prepend(str(wan_host / "scripts"))
        runpy.run_path(str(wan_host / "scripts" / name), run_name="__main__")

    return run


@pytest.fixture(params=MODELS)
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(request: pytest.FixtureRequest, model_type: str) -> Path:
    folder: Path = request.getfixturevalue(MODELS[model_type])
    return folder


def write_lora(model: Path, path: Path) -> dict[str, dict[str, Any]]:
    """A LoRA in diffusers' format for every transformer of a model, in the files of `path`; returns them by name."""
    import torch
    from diffusers import WanTransformer3DModel
    from safetensors.torch import save_file

    parts = [part for part in ("transformer", "transformer_2") if (model / part).is_dir()]
    suffixes = [""] if len(parts) == 1 else ["_high_noise", "_low_noise"]
    generator = torch.Generator().manual_seed(0)
    written = {}
    for part, suffix in zip(parts, suffixes, strict=True):
        state = {}
        for name, layer in WanTransformer3DModel.from_pretrained(model / part).named_modules():
            if isinstance(layer, torch.nn.Linear) and name.startswith("blocks."):
                size = (layer.in_features, layer.out_features)
                state[f"transformer.{name}.lora_A.weight"] = torch.randn(4, size[0], generator=generator)
                state[f"transformer.{name}.lora_B.weight"] = torch.randn(size[1], 4, generator=generator)
        file = path.with_name(f"{path.stem}{suffix}.safetensors")
        save_file(state, file)
        written[file.name] = state
    return written


@pytest.mark.parametrize("kind", LORA_FORMATS)
def test_a_lora_goes_into_every_format_that_is_offered_and_back(
    script: Any, model_type: str, model: Path, tmp_path: Path, kind: str
) -> None:
    import torch
    from modules.util.enum.ModelType import ModelType
    from modules.util.enum.TrainingMethod import TrainingMethod
    from safetensors.torch import load_file

    offered = ModelType[model_type].supported_output_formats(TrainingMethod.LORA)
    assert sorted(map(str, offered)) == sorted(LORA_FORMATS)
    before = write_lora(model, tmp_path / "before.safetensors")
    common = {
        "model_type": model_type,
        "training_method": "LORA",
        "base_model_name": model,
        "output_dtype": "FLOAT_32",
    }
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    script(
        "convert_model.py",
        **common,
        input_name=tmp_path / "before.safetensors",
        output_model_format=kind,
        output_model_destination=there,
    )
    script(
        "convert_model.py",
        **common,
        input_name=there,
        output_model_format="DIFFUSERS_LORA",
        output_model_destination=back,
    )

    for name, state in before.items():
        converted = load_file(tmp_path / name.replace("before", "there"))
        assert (converted.keys() == state.keys()) == (kind == "DIFFUSERS_LORA")
        again = load_file(tmp_path / name.replace("before", "back"))
        assert again.keys() == state.keys()
        for key, down in state.items():
            if key.endswith("lora_A.weight"):
                up = key.replace("lora_A", "lora_B")
                assert torch.allclose(again[up] @ again[key], state[up] @ down, rtol=1e-5, atol=1e-5), key


def test_a_whole_model_is_written_as_a_folder_that_loads_everywhere_and_equals_what_went_in(
    script: Any, model_type: str, model: Path, tmp_path: Path
) -> None:
    import torch
    from diffusers import DiffusionPipeline
    from modules.util.enum.ModelType import ModelType
    from modules.util.enum.TrainingMethod import TrainingMethod

    assert list(map(str, ModelType[model_type].supported_output_formats(TrainingMethod.FINE_TUNE))) == ["DIFFUSERS"]
    source = model
    for name in ("once", "twice"):  # what was written is read again
        script(
            "convert_model.py",
            model_type=model_type,
            input_name=source,
            output_dtype="FLOAT_32",
            output_model_format="DIFFUSERS",
            output_model_destination=tmp_path / name,
        )
        source = tmp_path / name

    before, after = (DiffusionPipeline.from_pretrained(folder) for folder in (model, source))
    assert type(after) is type(before)
    assert dict(after.config).keys() == dict(before.config).keys()
    assert after.config.boundary_ratio == before.config.boundary_ratio
    assert after.config.expand_timesteps == before.config.expand_timesteps
    for part, module in before.components.items():
        if isinstance(module, torch.nn.Module):
            state = getattr(after, part).state_dict()
            assert state.keys() == module.state_dict().keys()
            assert all(torch.equal(state[key], weight) for key, weight in module.state_dict().items()), part


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training_method": "EMBEDDING", "output_model_format": "SAFETENSORS"}, "choose FINE_TUNE or LORA"),
        ({"training_method": "FINE_TUNE_VAE", "output_model_format": "DIFFUSERS"}, "choose FINE_TUNE or LORA"),
        ({"output_model_format": "ORIGINAL_SINGLE_FILE"}, "DIFFUSERS"),
        ({"output_model_format": "ORIGINAL_TRANSFORMER"}, "DIFFUSERS"),
        ({"output_model_format": "COMFY_TRANSFORMER"}, "DIFFUSERS"),
        ({"output_model_format": "LEGACY_SAFETENSORS"}, "DIFFUSERS"),
        ({"output_model_format": "COMFY_LORA"}, "DIFFUSERS"),
        ({"training_method": "LORA", "output_model_format": "LEGACY_LORA"}, "DIFFUSERS_LORA"),
        ({"training_method": "LORA", "output_model_format": "DIFFUSERS"}, "DIFFUSERS_LORA"),
        ({"training_method": "LORA", "output_model_format": "COMFY_LORA", "base_model_name": ""}, "base model"),
        (
            {"output_model_format": "DIFFUSERS", "input_name": "transformer/diffusion_pytorch_model.safetensors"},
            "folder",
        ),
    ],
)
@pytest.mark.parametrize("model_type", ["WAN_2_1_T2V_1_3B", "WAN_2_2_T2V_A14B"])
def test_what_cannot_be_converted_is_refused_with_what_to_choose_instead(
    script: Any, model_type: str, model: Path, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    from wan_fixes.errors import UserError

    names: dict[str, Any] = {"input_name": model, "base_model_name": ""}
    if changes.get("training_method") == "LORA":
        write_lora(model, tmp_path / "before.safetensors")
        names = {"input_name": tmp_path / "before.safetensors", "base_model_name": model}
    given = names | {"output_dtype": "FLOAT_32"} | changes
    if changes.get("input_name"):
        given["input_name"] = model / changes["input_name"]
    with pytest.raises(UserError, match=words):
        script("convert_model.py", model_type=model_type, **given, output_model_destination=tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("model_type", ["WAN_2_1_T2V_1_3B", "WAN_2_2_T2V_A14B"])
def test_the_loss_script_gives_each_clip_the_same_loss_at_every_run(
    script: Any, runs: Any, model_type: str, model: Path, tmp_path: Path
) -> None:
    clips = runs.make_clips(tmp_path / "clips", 2)
    config = runs.write_configuration(model, clips, tmp_path, model_type=model_type)
    found = []
    for name in ("first.json", "second.json"):
        script("calculate_loss.py", config_path=config, output_path=tmp_path / name)
        found.append(json.loads((tmp_path / name).read_text(encoding="utf-8")))

    assert {Path(path).name for path in found[0]} == {"clip0.mp4", "clip1.mp4"}
    assert all(0 < loss < 100 for loss in found[0].values())
    assert found[0] == found[1]
