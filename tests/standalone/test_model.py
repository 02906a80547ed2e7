"""Loading a model: a whole folder comes in as it is, and whatever is wrong with another is named before training."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.model import check_tensors, load_model
from wan_fixes.hosts.standalone.model_files import check_model_folder
from wan_fixes.wan.variants import get_variant

T2V = "WAN_2_1_T2V_1_3B"
A14B = "WAN_2_2_T2V_A14B"
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
WEIGHTS = {
    "transformer": DIFFUSERS_WEIGHTS,
    "vae": DIFFUSERS_WEIGHTS,
    "text_encoder": "model.safetensors",
}
PARTS = tuple(WEIGHTS)


@pytest.fixture
def folder(tiny_wan: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return Path(shutil.copytree(tiny_wan, tmp_path / "model"))


def refused(folder: Path | str, variant: str = T2V) -> UserError:
    """The error of loading the folder, which must tell where, why and what to do."""
    with pytest.raises(UserError) as caught:
        load_model(folder, variant)
    assert caught.value.reason
    assert caught.value.fix
    return caught.value


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})


def shard(folder: Path, part: str) -> Path:
    """Split a part's weights into two files with an index, and return the index."""
    stem = WEIGHTS[part].removesuffix(".safetensors")
    state = safetensors.torch.load_file(folder / part / WEIGHTS[part])
    (folder / part / WEIGHTS[part]).unlink()
    weight_map = {}
    for number in (1, 2):
        file = f"{stem}-0000{number}-of-00002.safetensors"
        names = sorted(state)[number - 1 :: 2]
        safetensors.torch.save_file({name: state[name] for name in names}, folder / part / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    index = folder / part / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}), encoding="utf-8")
    return index


# --- whole folders


def test_a_whole_folder_is_loaded_frozen_with_every_weight_as_stored(tiny_wan):
    model = load_model(tiny_wan, T2V)
    assert model.variant == get_variant(T2V)
    assert (model.transformer_2, model.boundary_ratio) == (None, None)
    for part in PARTS:
        module = getattr(model, part)
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())
        loaded = module.state_dict()
        stored = safetensors.torch.load_file(tiny_wan / part / WEIGHTS[part])
        assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())


def test_each_part_gets_its_dtype_but_for_what_precision_needs(tiny_wan):
    model = load_model(tiny_wan, T2V, dtypes={"transformer": torch.bfloat16, "text_encoder": torch.bfloat16})
    assert model.transformer.patch_embedding.weight.dtype == torch.bfloat16
    assert model.transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert model.transformer.scale_shift_table.dtype == torch.float32
    assert model.text_encoder.dtype == torch.bfloat16
    assert model.vae.dtype == torch.float32


def test_both_experts_are_loaded_with_their_boundary(tiny_wan_two_experts):
    model = load_model(tiny_wan_two_experts, A14B)
    assert model.boundary_ratio == 0.875
    assert not torch.equal(model.transformer.proj_out.weight, model.transformer_2.proj_out.weight)


@pytest.mark.parametrize("part", PARTS)
def test_a_sharded_part_is_the_same_as_a_whole_one(tiny_wan, folder, part):
    shard(folder, part)
    loaded = getattr(load_model(folder, T2V), part).state_dict()
    stored = safetensors.torch.load_file(tiny_wan / part / WEIGHTS[part])
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())


def test_a_tied_weight_may_be_stored_under_either_name(folder):
    def rename(state: dict[str, torch.Tensor]) -> None:
        state["encoder.embed_tokens.weight"] = state.pop("shared.weight")

    expected = load_model(folder, T2V).text_encoder.shared.weight
    edit_weights(folder / "text_encoder" / "model.safetensors", rename)
    assert torch.equal(load_model(folder, T2V).text_encoder.shared.weight, expected)


def test_a_weight_of_no_use_is_reported_and_does_no_harm(folder, caplog):
    edit_weights(
        folder / "transformer" / DIFFUSERS_WEIGHTS, lambda state: state.update({"left_over.weight": torch.zeros(1)})
    )
    load_model(folder, T2V)
    assert "left_over.weight" in caplog.text


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_beside_good_weights_is_never_opened(folder, tmp_path):
    marker = tmp_path / "code was run"
    for part, name in WEIGHTS.items():
        (folder / part / name).with_suffix(".bin").write_bytes(pickle.dumps(Intruder(marker)))
    load_model(folder, T2V)
    assert not marker.exists()


def test_code_in_the_folder_is_never_run(folder, tmp_path):
    marker = tmp_path / "code was run"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()\nclass T: pass\n"
    for part in ("tokenizer", "text_encoder", "transformer"):
        (folder / part / "intruder.py").write_text(code, encoding="utf-8")
    edit(folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "intruder.T"]})
    edit(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "intruder.T"})
    edit(folder / "transformer" / "config.json", auto_map={"AutoModel": "intruder.T"})
    load_model(folder, T2V)
    assert not marker.exists()


def test_checking_a_folder_takes_headers_alone(folder, monkeypatch):
    """Weights of 28 GB must not be read only to find that another file is missing."""
    monkeypatch.setattr("safetensors.torch.load_file", None)
    monkeypatch.setattr("diffusers.WanTransformer3DModel.from_pretrained", None)
    checked = check_model_folder(folder, get_variant(T2V))
    assert checked.parts["transformer"].tensors["proj_out.weight"].shape == (64, 96)


# --- no such folder


@pytest.mark.parametrize(
    ("name", "reason", "fix"),
    [
        ("", "empty", "hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("Wan-AI/Wan2.1-T2V-14B-Diffusers", "Hub id", "hf download Wan-AI/Wan2.1-T2V-14B-Diffusers"),
        ("somewhere/else/entirely", "no such folder", "hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
    ],
)
def test_a_model_that_is_not_there_comes_with_the_command_that_gets_it(name, reason, fix):
    error = refused(name)
    assert reason in error.reason
    assert fix in error.fix


def test_a_single_file_is_not_a_model_folder(tmp_path):
    file = tmp_path / "wan.safetensors"
    file.write_bytes(b"")
    assert "single file" in str(refused(file))


def test_the_original_release_is_told_from_the_diffusers_version(tmp_path):
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"")
    error = refused(tmp_path)
    assert "Wan2.1_VAE.pth" in error.reason
    assert "Diffusers" in error.fix


def test_an_empty_folder_lacks_the_index(tmp_path):
    assert "model_index.json" in refused(tmp_path).reason


# --- something missing or damaged


BROKEN_JSON = {
    "empty": b"",
    "cut short": b'{"_class_name": "Wan',
    "a list": b"[1, 2]",
    "not UTF-8": '{"_class_name": "Wän"}'.encode("latin-1"),
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", BROKEN_JSON.values(), ids=BROKEN_JSON)
@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "vae/config.json",
        "text_encoder/config.json",
        "transformer/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_description_that_cannot_be_read_is_named(folder, file, content):
    (folder / file).write_bytes(content)
    assert refused(folder).path == str(folder / file)


@pytest.mark.parametrize("part", [*PARTS, "scheduler", "tokenizer"])
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    error = refused(folder)
    assert str(folder / part) in error.path
    assert part in error.what
    assert "missing" in error.reason


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_the_index_does_not_name_is_named(folder, part):
    edit(folder / "model_index.json", **{part: [None, None]})
    assert part in refused(folder).reason


def test_an_expert_that_is_missing_is_named(tiny_wan_two_experts, tmp_path):
    folder = shutil.copytree(tiny_wan_two_experts, tmp_path / "model")
    shutil.rmtree(folder / "transformer_2")
    assert "transformer_2" in refused(folder, A14B).what


def test_a_tokenizer_without_its_vocabulary_is_named(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(folder).reason


@pytest.mark.parametrize("part", PARTS)
def test_missing_weights_are_named(folder, part):
    (folder / part / WEIGHTS[part]).unlink()
    error = refused(folder)
    assert error.path == str(folder / part / WEIGHTS[part])
    assert "hf download" in error.fix


def test_weights_of_another_precision_are_pointed_out(folder):
    weights = folder / "transformer" / DIFFUSERS_WEIGHTS
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert "fp16" in refused(folder).reason


def test_pickled_weights_alone_are_refused_unopened(folder, tmp_path):
    marker = tmp_path / "code was run"
    weights = folder / "vae" / DIFFUSERS_WEIGHTS
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(pickle.dumps(Intruder(marker)))
    error = refused(folder)
    assert "pickled" in error.reason
    assert not marker.exists()


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5676070424\n"
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "header cut": lambda data: data[:100],
    "weights cut by one byte": lambda data: data[:-1],
    "weights cut in half": lambda data: data[: len(data) // 2],
    "bytes appended": lambda data: data + b"\0" * 16,
    "header length too large": lambda data: b"\xff" * 8 + data[8:],
    "header no JSON": lambda data: data[:8] + b"!" + data[9:],
    "HTML of an error page": lambda _: b"<html><body>404: Not Found</body></html>",
    "a Git LFS pointer": lambda _: LFS_POINTER,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("part", PARTS)
def test_damaged_weights_are_named_before_anything_is_loaded(folder, part, damage):
    weights = folder / part / WEIGHTS[part]
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(UserError) as caught:
        check_model_folder(folder, get_variant(T2V))
    assert caught.value.path == str(weights)
    assert part in caught.value.what
    assert ("Git LFS" in caught.value.reason) == (weights.read_bytes() == LFS_POINTER)


def test_a_missing_shard_is_named(folder):
    shard(folder, "transformer")
    missing = folder / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors"
    missing.unlink()
    error = refused(folder)
    assert error.path == str(missing)
    assert "missing" in error.reason


@pytest.mark.parametrize("part", PARTS)
def test_a_weight_that_the_index_promises_and_no_shard_holds_is_named(folder, part):
    index = shard(folder, part)
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    name, file = next(iter(weight_map.items()))
    edit_weights(folder / part / file, lambda state: state.pop(name))
    error = refused(folder)
    assert error.path == str(folder / part / file)
    assert name in error.reason


@pytest.mark.parametrize(
    "weight_map", [None, {}, ["a"], {"proj_out.weight": "../secret.safetensors"}, {"proj_out.weight": 7}]
)
def test_an_index_that_makes_no_sense_is_named(folder, weight_map):
    index = shard(folder, "transformer")
    edit(index, weight_map=weight_map)
    assert refused(folder).path == str(index)


# --- weights that do not fit the configuration


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_weight_is_named(folder, part):
    weights = folder / part / WEIGHTS[part]
    names = sorted(safetensors.torch.load_file(weights))
    edit_weights(weights, lambda state: state.pop(names[-1]))
    error = refused(folder)
    assert error.path == str(weights)
    assert names[-1] in error.reason


@pytest.mark.parametrize("part", PARTS)
def test_a_weight_of_another_shape_is_named(folder, part):
    weights = folder / part / WEIGHTS[part]
    name = sorted(safetensors.torch.load_file(weights))[0]
    edit_weights(weights, lambda state: state.update({name: torch.zeros(3, 2)}))
    error = refused(folder)
    assert error.path == str(weights)
    assert name in error.reason
    assert "[3, 2]" in error.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", PARTS)
def test_a_weight_that_is_no_number_is_named(folder, part, value):
    weights = folder / part / WEIGHTS[part]
    name = sorted(safetensors.torch.load_file(weights))[0]
    edit_weights(weights, lambda state: state[name].view(-1)[:1].fill_(value))
    error = refused(folder)
    assert error.path == str(weights)
    assert name in error.reason


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("transformer/config.json", {"num_layers": "two"}),
        ("transformer/config.json", {"attention_head_dim": 0}),
        ("vae/config.json", {"dim_mult": []}),
        ("text_encoder/config.json", {"num_layers": "two"}),
        ("scheduler/scheduler_config.json", {"solver_type": "nonsense", "beta_schedule": 3}),
    ],
)
def test_a_configuration_of_which_no_model_can_be_made_is_named(folder, file, changes):
    edit(folder / file, **changes)
    assert Path(refused(folder).path).is_relative_to((folder / file).parent)


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_a_configuration_that_would_cut_the_model_short_is_named(folder, part):
    edit(folder / part / "config.json", num_layers=1)
    error = refused(folder)
    assert error.path == str(folder / part / "config.json")
    assert ".1." in error.reason


def test_a_tokenizer_that_cannot_be_loaded_is_named(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text('{"model": {"type": "Unheard of"}}', encoding="utf-8")
    assert "tokenizer" in refused(folder).path


def test_a_tokenizer_with_more_tokens_than_the_encoder_is_named(folder):
    def shrink(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name in ("shared.weight", "encoder.embed_tokens.weight")]:
            state[name] = state[name][:50].clone()

    edit(folder / "text_encoder" / "config.json", vocab_size=50)
    edit_weights(folder / "text_encoder" / "model.safetensors", shrink)
    error = refused(folder)
    assert "tokens" in error.reason
    assert "tokenizer" in error.path


def test_an_image_encoder_is_compared_with_its_configuration_and_with_the_transformer(tiny_wan_i2v, tmp_path):
    folder = shutil.copytree(tiny_wan_i2v, tmp_path / "model")
    i2v = get_variant("WAN_2_1_I2V_14B")
    check_tensors("image_encoder", check_model_folder(folder, i2v).parts["image_encoder"])
    edit(folder / "image_encoder" / "config.json", patch_size=16)
    with pytest.raises(UserError, match=r"patch_embedding\.weight has shape") as caught:
        check_tensors("image_encoder", check_model_folder(folder, i2v).parts["image_encoder"])
    assert caught.value.path == str(folder / "image_encoder" / "model.safetensors")
    edit(folder / "image_encoder" / "config.json", hidden_size=64)
    with pytest.raises(UserError, match="64 numbers, and the transformer takes 32") as caught:
        check_model_folder(folder, i2v)
    assert caught.value.path == str(folder / "image_encoder" / "config.json")


# --- another model


@pytest.mark.parametrize(
    ("changes", "proposed"),
    [
        ({"in_channels": 36}, "WAN_2_2_I2V_A14B"),
        ({"in_channels": 48}, "WAN_2_2_TI2V_5B"),
        ({"image_dim": 1280}, "Wan2.1-T2V-1.3B"),
        ({"num_attention_heads": 40, "num_layers": 40}, "WAN_2_1_T2V_14B"),
    ],
)
def test_a_transformer_of_another_variant_is_told_by_its_configuration(folder, changes, proposed):
    edit(folder / "transformer" / "config.json", **changes)
    error = refused(folder)
    assert error.path == str(folder / "transformer" / "config.json")
    assert proposed in error.fix


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("WanImageToVideoPipeline", "WAN_2_1_I2V_14B"),
        ("StableDiffusionPipeline", "no WAN model"),
        (None, "no WAN model"),
        (["WanPipeline"], "no WAN model"),
    ],
)
def test_a_folder_of_another_pipeline_is_refused(folder, pipeline, expected):
    edit(folder / "model_index.json", _class_name=pipeline)
    assert expected in str(refused(folder))


def test_two_experts_are_not_one_and_one_is_not_two(tiny_wan, tiny_wan_two_experts):
    assert A14B in refused(tiny_wan_two_experts, T2V).fix
    assert T2V in refused(tiny_wan, A14B).fix


@pytest.mark.parametrize("ratio", ["high", 0, 1.5])
def test_a_boundary_that_is_none_is_refused(tiny_wan_two_experts, tmp_path, ratio):
    folder = shutil.copytree(tiny_wan_two_experts, tmp_path / "model")
    edit(folder / "model_index.json", boundary_ratio=ratio)
    assert "boundary_ratio" in refused(folder, A14B).reason


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("vae/config.json", {"z_dim": 48}, "48 channels"),
        ("vae/config.json", {"latents_mean": [0.0]}, "latents_mean"),
        ("vae/config.json", {"latents_std": "wide"}, "latents_std"),
        ("text_encoder/config.json", {"d_model": 4096}, "4096"),
        ("transformer/config.json", {"quantization_config": {"quant_method": "gguf"}}, "quantised"),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "DDIMScheduler"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "AutoencoderKL"),
        ("model_index.json", {"text_encoder": ["os", "system"]}, "system"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(folder, file, changes, reason):
    edit(folder / file, **changes)
    error = refused(folder)
    assert error.path == str(folder / file)
    assert reason in error.reason


@pytest.mark.parametrize("name", ["WAN_2_1_I2V_14B", "WAN_2_2_I2V_A14B", "WAN_2_2_TI2V_5B"])
def test_a_variant_that_needs_an_image_is_left_to_onetrainer(tiny_wan, name):
    assert "OneTrainer" in refused(tiny_wan, name).fix


def test_an_unknown_variant_is_named(tiny_wan):
    assert "WAN_9" in str(refused(tiny_wan, "WAN_9"))
