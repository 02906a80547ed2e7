"""Weights that are not whole are found from their headers, and named; those that are whole are never refused."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from wan_fixes.errors import UserError
from wan_fixes.wan.model_check import check_named_files
from wan_fixes.wan.weight_files import WeightFileError, check_parts, read_header, read_shards


def write(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros((2, 3), dtype=np.float32) for name in names}, path)
    return path


def write_index(path: Path, **weight_map: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as diffusers saves one: a part in one file, a part in shards, parts without weights."""
    folder = tmp_path / "model"
    write(folder / "vae/diffusion_pytorch_model.safetensors", "v")
    write(folder / "unet/diffusion_pytorch_model-00001-of-00002.safetensors", "a")
    write(folder / "unet/diffusion_pytorch_model-00002-of-00002.safetensors", "b")
    shards = {name: f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n, name in ((1, "a"), (2, "b"))}
    write_index(folder / "unet/diffusion_pytorch_model.safetensors.index.json", **shards)
    (folder / "tokenizer").mkdir()
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder/pytorch_model.bin").write_bytes(b"pickled")
    return folder


def test_whole_files_are_described(model: Path) -> None:
    assert read_header(model / "vae/diffusion_pytorch_model.safetensors")["v"].shape == (2, 3)
    assert set(read_shards(model / "unet/diffusion_pytorch_model.safetensors.index.json")) == {"a", "b"}
    check_parts(model)
    check_named_files("ANY", str(model), {})


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("vae/diffusion_pytorch_model.safetensors", "damaged or cut short"),
        ("unet/diffusion_pytorch_model-00002-of-00002.safetensors", "damaged or cut short"),
        ("unet/diffusion_pytorch_model.safetensors.index.json", "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_cut_short_is_named(file: str, reason: str, model: Path) -> None:
    cut(model / file)
    with pytest.raises(UserError, match=reason) as caught:
        check_named_files("STABLE_DIFFUSION_15", str(model), {})
    assert caught.value.path == str(model / file)
    assert "STABLE_DIFFUSION_15" in caught.value.what and caught.value.fix


def test_a_missing_shard_is_named(model: Path) -> None:
    shard = model / "unet/diffusion_pytorch_model-00001-of-00002.safetensors"
    shard.unlink()
    with pytest.raises(WeightFileError, match=r"missing; diffusion_pytorch_model\.safetensors\.index\.json names it"):
        check_parts(model)


def test_shards_that_were_swapped_are_found(model: Path) -> None:
    first, second = sorted((model / "unet").glob("*-of-*"))
    shutil.copy(first, second)
    with pytest.raises(WeightFileError, match="b is missing"):
        check_parts(model)


def test_a_pointer_of_git_lfs_is_called_what_it_is(model: Path) -> None:
    (model / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        check_named_files("ANY", str(model), {})


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "x.bin", 5])
def test_an_index_may_name_files_beside_it_alone(name: object, model: Path) -> None:
    index = model / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}), encoding="utf-8")
    with pytest.raises(WeightFileError):
        read_shards(index)


def test_another_variant_may_be_the_whole_one_where_the_default_was_not_begun(model: Path) -> None:
    for shard in (model / "unet").glob("*-of-*"):
        shard.unlink()  # the index stays, as `hf download --include "*fp16*" "*.json"` leaves it
    variant = write(model / "unet/diffusion_pytorch_model.fp16.safetensors", "a", "b")
    check_parts(model)
    cut(variant)
    with pytest.raises(WeightFileError):
        check_parts(model)


def test_a_broken_variant_beside_a_whole_default_is_not_asked_for(model: Path) -> None:
    cut(write(model / "vae/diffusion_pytorch_model.fp16.safetensors", "v"))
    check_parts(model)


@pytest.mark.parametrize("name", ["", "  ", "some/hub-id", "/no/such/folder"])
def test_what_is_no_local_file_is_the_hosts_business(name: str) -> None:
    check_named_files("ANY", name, {"vae_model_name": None, "lora_name": name})


@pytest.mark.parametrize("field", ["transformer_model_name", "vae_model_name", "lora_name"])
def test_single_files_of_parts_are_looked_at_too(field: str, model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "part.safetensors", "x")
    check_named_files("ANY", str(model), {field: str(file)})
    cut(file)
    with pytest.raises(UserError, match=r"part\.safetensors"):
        check_named_files("ANY", str(model), {field: str(file)})


def test_the_error_survives_a_worker_process(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(WeightFileError(tmp_path, "why", "how")))
    assert (error.path, error.reason, error.fix) == (tmp_path, "why", "how")


def test_no_torch_is_imported() -> None:
    code = "import sys, wan_fixes.wan.model_check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
