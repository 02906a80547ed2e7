"""A transformer in a file of its own, as ComfyUI's users have it: safetensors or GGUF, in either naming, or broken."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def files(wan_host: Path) -> Any:
    import wan_files

    return wan_files


@pytest.fixture
def weights(tiny_wan: Path) -> dict[str, Any]:
    """The tiny transformer's weights, changed so that they are not the folder's, by diffusers' names."""
    from safetensors.torch import load_file

    stored = load_file(tiny_wan / "transformer" / "diffusion_pytorch_model.safetensors")
    return {name: weight * 1.25 for name, weight in stored.items()}


def configuration(runs: Any, model: Path, clips: Path, work: Path, file: Path | str, **changes: Any) -> Any:
    part = {"model_name": str(file), "weight_dtype": "GGUF"} | changes.pop("part", {})
    return runs.configuration(model, clips, work, **({"train_dtype": "BFLOAT_16", "transformer": part} | changes))


def load(config: Any) -> Any:
    from modules.util import create

    return create.create_model_loader(config.model_type, config.training_method).load(
        config.model_type, config.model_names(), config.weight_dtypes(), config.quantization
    )


def refused(config: Any) -> Any:
    from wan_fixes.errors import UserError

    with pytest.raises(UserError) as caught:
        load(config)
    return caught.value


def test_the_names_of_this_file_are_those_that_diffusers_converts(files: Any, weights: dict[str, Any]) -> None:
    import torch
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    own = files.in_own_names(weights)
    assert not own.keys() & weights.keys() - {"patch_embedding.weight", "patch_embedding.bias"}
    converted = convert_wan_transformer_to_diffusers(own.copy())
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_safetensors_in_wans_own_names_are_loaded_whole_and_without_the_folders_weights(
    runs: Any, files: Any, tiny_wan: Path, tmp_path: Path, weights: dict[str, Any], prefix: str
) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "wan.safetensors"
    save_file(files.in_own_names(weights, prefix), file)
    folder = shutil.copytree(tiny_wan, tmp_path / "model")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    live = load(
        configuration(runs, folder, tmp_path, tmp_path, file, part={"weight_dtype": "BFLOAT_16"})
    ).transformer.state_dict()

    assert live.keys() == weights.keys()
    full = {name for name, weight in live.items() if weight.dtype == torch.float32}
    assert "blocks.0.scale_shift_table" in full and "condition_embedder.time_embedder.linear_1.weight" in full
    for name, weight in weights.items():  # what is kept in fp32 has lost nothing on the way
        assert torch.equal(live[name], weight if name in full else weight.to(torch.bfloat16)), name


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": False}], ids=["checkpointed", "not checkpointed"])
def test_a_lora_trains_and_samples_over_a_gguf_transformer(
    runs: Any,
    files: Any,
    tiny_wan: Path,
    clips: Path,
    tmp_path: Path,
    weights: dict[str, Any],
    kind: str,
    changes: dict[str, Any],
) -> None:
    import torch
    from diffusers.quantizers.gguf.utils import GGUFLinear, dequantize_gguf_tensor

    # Any tensor may come in bf16, also what is no linear layer.
    own = files.in_own_names(weights)
    types = {"": kind, "patch_embedding.weight": "BF16", "blocks.0.self_attn.q.bias": "BF16", "head.modulation": "BF16"}
    file = files.write_gguf(tmp_path / "wan.gguf", own, types)
    sample = {"prompt": "a ball", "width": 64, "height": 64, "frames": 5, "diffusion_steps": 2, "cfg_scale": 1.0}
    run = runs.train(
        configuration(
            runs,
            tiny_wan,
            clips,
            tmp_path,
            file,
            part=changes,
            epochs=3,
            samples=[sample],
            sample_after=2,
            sample_after_unit="EPOCH",
            sample_skip_first=1,
        )
    )

    transformer = run.trainer.model.transformer
    layers = {name: layer for name, layer in transformer.named_modules() if isinstance(layer, GGUFLinear)}
    assert "blocks.1.ffn.net.2" in layers and "condition_embedder.time_embedder.linear_1" not in layers
    for name, layer in layers.items():
        weight = weights[f"{name}.weight"]
        error = (dequantize_gguf_tensor(layer.weight).float() - weight).abs().max() / weight.abs().max()
        assert error < (0.01 if kind == "Q8_0" else 0.13), name
    for name in ("patch_embedding.weight", "blocks.0.attn1.to_q.bias"):
        assert torch.equal(transformer.get_parameter(name).float(), weights[name].to(torch.bfloat16).float())
    assert all(0 < loss < 100 for loss in run.losses)
    assert len(run.losses) == 6
    assert all(layer.lora_up.weight.any() for layer in run.trainer.model.transformer_lora.lora_modules.values())
    assert len(list((tmp_path / "workspace").glob("samples/*/*.mp4"))) == 1


def test_each_expert_is_taken_from_its_own_file(
    runs: Any, files: Any, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path
) -> None:
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor
    from safetensors.torch import load_file

    parts, originals = {}, {}
    for part in ("transformer", "transformer_2"):
        originals[part] = load_file(tiny_wan_two_experts / part / "diffusion_pytorch_model.safetensors")
        file = files.write_gguf(tmp_path / f"{part}.gguf", files.in_own_names(originals[part]), {"": "Q8_0"})
        parts[part] = {"model_name": str(file), "weight_dtype": "GGUF"}
    config = runs.configuration(
        tiny_wan_two_experts,
        clips,
        tmp_path,
        model_type="WAN_2_2_T2V_A14B",
        train_dtype="BFLOAT_16",
        epochs=3,
        **parts,
    )
    run = runs.train(config)

    assert all(0 < loss < 100 for loss in run.losses)
    for part, weights in originals.items():
        live = getattr(run.trainer.model, part).get_parameter("blocks.0.attn1.to_q.weight")
        weight = weights["blocks.0.attn1.to_q.weight"]
        assert (dequantize_gguf_tensor(live).float() - weight).abs().max() < 0.01 * weight.abs().max()


def without_one(weights: dict[str, Any]) -> str:
    del weights["blocks.1.attn1.to_q.weight"]
    return "1 of "


def misshapen(weights: dict[str, Any]) -> str:
    weights["blocks.1.attn1.to_q.weight"] = weights["blocks.1.attn1.to_q.weight"][:-1].contiguous()
    return "has shape [95, 96], and the base model makes it [96, 96]"


def of_a_longer_model(weights: dict[str, Any]) -> str:
    weights["blocks.2.attn1.to_q.weight"] = weights["blocks.1.attn1.to_q.weight"].clone()
    return "no place for 1 of its weights, blocks.2.attn1.to_q.weight"


def not_a_number(weights: dict[str, Any]) -> str:
    import torch

    weights["blocks.1.attn1.to_q.weight"][3, 40] = torch.nan
    return "blocks.1.attn1.to_q.weight holds numbers that are not finite"


def not_a_number_in_a_bias(weights: dict[str, Any]) -> str:
    import torch

    weights["blocks.1.attn1.to_q.bias"][3] = torch.inf
    return "blocks.1.attn1.to_q.bias holds numbers that are not finite"


@pytest.mark.parametrize(
    "damage",
    [without_one, misshapen, of_a_longer_model, not_a_number, not_a_number_in_a_bias],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("own_names", [True, False], ids=["own names", "diffusers' names"])
@pytest.mark.parametrize("kind", ["safetensors", "Q8_0", "BF16"])
def test_a_broken_file_is_an_error_that_names_it_and_the_weight(
    runs: Any,
    files: Any,
    tiny_wan: Path,
    tmp_path: Path,
    weights: dict[str, Any],
    damage: Any,
    own_names: bool,
    kind: str,
) -> None:
    from safetensors.torch import save_file

    reason = damage(weights)
    named = files.in_own_names(weights) if own_names else weights
    if kind == "safetensors":
        file = tmp_path / "wan.safetensors"
        save_file(named, file)
    else:
        file = files.write_gguf(tmp_path / "wan.gguf", named, {"": kind})
    part = {"weight_dtype": "FLOAT_32"} if kind == "safetensors" else {}
    error = refused(configuration(runs, tiny_wan, tmp_path, tmp_path, file, part=part))

    assert Path(error.path) == file
    assert reason in error.reason
    assert error.fix


@pytest.mark.parametrize("size", [0, 3, 100, 5000, -1000, -1])
def test_a_gguf_that_is_cut_short_is_an_error_before_anything_is_loaded(
    runs: Any,
    files: Any,
    tiny_wan: Path,
    tmp_path: Path,
    weights: dict[str, Any],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wan_fixes.errors import UserError
    from wan_fixes.hosts.onetrainer.wan.loader import WanModelLoader
    from wan_fixes.wan.model_check import check_named_files

    file = files.write_gguf(tmp_path / "wan.gguf", files.in_own_names(weights), {"": "Q4_0"})
    check_named_files("WAN_2_1_T2V_1_3B", str(tiny_wan), {"transformer_model_name": str(file)})
    file.write_bytes(file.read_bytes()[:size])
    monkeypatch.setattr(WanModelLoader, "_load_text_encoder", lambda *_: pytest.fail("loaded before it was checked"))
    error = refused(configuration(runs, tiny_wan, tmp_path, tmp_path, file))

    assert Path(error.path) == file
    assert "damaged or cut short" in error.reason
    with pytest.raises(UserError, match="damaged or cut short") as caught:
        check_named_files("FLUX_DEV_1", "", {"transformer_model_name": str(file)})
    assert Path(caught.value.path) == file


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [
        ("wan.gguf", "BFLOAT_16", "it is a GGUF file, and the data type is BFLOAT_16"),
        ("wan.gguf", "FLOAT_8", "it is a GGUF file, and the data type is FLOAT_8"),
        ("wan.safetensors", "GGUF", "the data type is GGUF, and it is no GGUF file"),
        ("text.gguf", "GGUF", "GGUF magic invalid"),
        ("text.safetensors", "BFLOAT_16", "damaged or cut short"),
        ("missing.gguf", "GGUF", "the file is missing"),
        ("wan.pth", "BFLOAT_16", "it is no .safetensors or .gguf file"),
        ("", "GGUF", "the data type is GGUF, and no GGUF file is named"),
    ],
)
def test_file_and_data_type_must_go_together(
    runs: Any, files: Any, tiny_wan: Path, tmp_path: Path, weights: dict[str, Any], name: str, dtype: str, reason: str
) -> None:
    from safetensors.torch import save_file

    files.write_gguf(tmp_path / "wan.gguf", files.in_own_names(weights), {"": "Q4_0"})
    save_file(files.in_own_names(weights), tmp_path / "wan.safetensors")
    for other in ("text.gguf", "text.safetensors", "wan.pth"):
        (tmp_path / other).write_text("no weights, but a text of some length", encoding="utf-8")
    file = tmp_path / name if name else ""
    error = refused(configuration(runs, tiny_wan, tmp_path, tmp_path, file, part={"weight_dtype": dtype}))

    assert Path(error.path) == (file or tiny_wan)
    assert reason in error.reason
    assert error.fix


def test_comfyuis_scaled_fp8_is_refused_and_not_loaded_without_its_scales(
    runs: Any, files: Any, tiny_wan: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "fp8_scaled.safetensors"
    own = files.in_own_names(weights)
    name = "blocks.0.self_attn.q"
    own[f"{name}.weight"] = (own[f"{name}.weight"] * 100).to(torch.float8_e4m3fn)
    save_file(own | {f"{name}.scale_weight": torch.tensor(0.01)}, file)
    error = refused(configuration(runs, tiny_wan, tmp_path, tmp_path, file, part={"weight_dtype": "BFLOAT_16"}))

    assert Path(error.path) == file
    assert f"{name}.scale_weight" in error.reason


def test_the_file_of_another_model_is_refused(runs: Any, tiny_wan: Path, tiny_wan_i2v: Path, tmp_path: Path) -> None:
    error = refused(
        configuration(
            runs,
            tiny_wan,
            tmp_path,
            tmp_path,
            tiny_wan_i2v / "transformer" / "diffusion_pytorch_model.safetensors",
            part={"weight_dtype": "BFLOAT_16"},
        )
    )

    assert "transformer/diffusion_pytorch_model.safetensors" in Path(error.path).as_posix()
    assert "patch_embedding.weight has shape [96, 36, 1, 2, 2]" in error.reason


def test_a_gguf_transformer_is_not_trained_as_a_whole(
    runs: Any, files: Any, tiny_wan: Path, clips: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    from wan_fixes.errors import UserError

    file = files.write_gguf(tmp_path / "wan.gguf", files.in_own_names(weights), {"": "Q8_0"})
    config = configuration(
        runs, tiny_wan, clips, tmp_path, file, training_method="FINE_TUNE", output_model_format="DIFFUSERS"
    )
    with pytest.raises(UserError, match="transformer cannot be trained as a whole from a GGUF file"):
        runs.train(config)


def test_a_fine_tune_of_a_file_goes_on_from_its_backup(
    runs: Any, files: Any, tiny_wan: Path, clips: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "wan.safetensors"
    save_file(files.in_own_names(weights), file)

    def run(work: str, **changes: Any) -> Any:
        settings = {
            "training_method": "FINE_TUNE",
            "output_model_format": "DIFFUSERS",
            "output_model_destination": str(tmp_path / work / "model"),
            "train_dtype": "FLOAT_32",
            "layer_filter": "",
            "layer_filter_preset": "full",
            "learning_rate": 1e-2,
            "part": {"weight_dtype": "FLOAT_32"},
        }
        return runs.train(configuration(runs, tiny_wan, clips, tmp_path / work, file, **(settings | changes)))

    whole = run("whole", epochs=2)
    first = run("parts", backup_before_save=True)
    again = run("parts", epochs=2, continue_last_backup=True)

    assert first.losses + again.losses == pytest.approx(whole.losses, rel=1e-5)


@pytest.mark.parametrize(
    "kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "BF16"]
)
def test_every_number_of_a_block_that_can_be_nan_is_looked_at(wan_host: Path, kind: str) -> None:
    import gguf
    import numpy as np
    import torch
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    from wan_fixes.hosts.onetrainer.wan.single_file import gguf_is_finite

    quantization = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[quantization][1]

    def weight(blocks: Any) -> GGUFParameter:
        return GGUFParameter(torch.from_numpy(blocks), quant_type=quantization)

    finite = np.zeros((2, 4 * size), np.uint8)
    assert gguf_is_finite(weight(finite))
    for byte in range(size - 1):  # 0x7e00 is a fp16 NaN, 0x7f80 infinity in bf16, and small wherever they are no floats
        for low, high in ((0x00, 0x7E), (0x80, 0x7F)):
            blocks = finite.copy()
            blocks[1, 2 * size + byte : 2 * size + byte + 2] = low, high
            parameter = weight(blocks)
            reference = gguf.quants.dequantize(blocks, quantization)
            assert gguf_is_finite(parameter) == bool(np.isfinite(reference).all()), byte
            assert dequantize_gguf_tensor(parameter).isfinite().all().item() == np.isfinite(reference).all()
