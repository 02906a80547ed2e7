"""The base model is there and of the model type; what a training writes has a place, and replaces nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from preflight.conftest import Check, make_clips, make_model, only
from wan_fixes import filesystem
from wan_fixes.preflight import check_config
from wan_fixes.preflight.base_model import variants_of
from wan_fixes.wan.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_is_told_apart_from_those_of_all_other_variants(check: Check, tmp_path: Path, name: str) -> None:
    folder = make_model(tmp_path / name, name)
    assert variants_of(folder) == [VARIANTS[name]]
    for other in VARIANTS:
        found = [found for found in check(base_model_name=name, model_type=other) if found.rule == "base_model"]
        assert [(f.severity, f"set model_type to {name}" in f.fix) for f in found] == (
            [] if other == name else [("error", True)]
        )


def test_a_small_model_for_tests_is_any_that_takes_the_same(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tiny", "WAN_2_1_T2V_1_3B", num_layers=2, num_attention_heads=2)
    assert variants_of(folder) == [VARIANTS["WAN_2_1_T2V_1_3B"], VARIANTS["WAN_2_1_T2V_14B"]]


def test_the_models_that_tests_are_done_with_are_taken(tiny_wan: Path, tiny_wan_ti2v: Path) -> None:
    assert VARIANTS["WAN_2_1_T2V_1_3B"] in (variants_of(tiny_wan) or [])
    assert variants_of(tiny_wan_ti2v) == [VARIANTS["WAN_2_2_TI2V_5B"]]


def test_one_expert_may_be_missing_where_it_is_left_out(check: Check, tmp_path: Path) -> None:
    make_model(tmp_path / "one", "WAN_2_1_T2V_14B")
    changes: dict[str, Any] = {"model_type": "WAN_2_2_T2V_A14B", "base_model_name": "one"}
    assert only(check(**changes), "base_model").severity == "error"
    assert check(**changes, transformer_2={"include": False}) == []


def test_a_wan_folder_for_another_model_type_is_an_error(check: Check) -> None:
    assert "holds WAN 2.1 text-to-video 1.3B" not in only(check(model_type="FLUX_DEV_1"), "base_model", "error").what


def test_a_wan_that_the_host_brings_itself_is_not_judged(config: dict[str, Any], tmp_path: Path) -> None:
    config["model_type"] = "WAN_2_2"
    strange = {finding.rule for finding in check_config(config, base=tmp_path) if finding.severity == "error"}
    assert strange == {"model_type", "base_model"}
    assert check_config(config, base=tmp_path, host_types={"WAN_2_2", "FLUX_DEV_1"}) == []
    config["model_type"] = "FLUX_DEV_1"
    assert only(check_config(config, base=tmp_path, host_types={"FLUX_DEV_1"}), "base_model", "error")


def test_a_repository_or_name_of_another_variant_is_an_error(check: Check) -> None:
    for name in ("Wan-AI/Wan2.1-T2V-14B-Diffusers", "t2v-14B"):
        found = only(check(base_model_name=name), "base_model", "error")
        assert "set model_type to WAN_2_1_T2V_14B" in found.fix
    for name in ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "t2v-1.3B", "somebody/a-fine-tune"):
        assert check(base_model_name=name) == []


@pytest.mark.parametrize(
    "name", ["modell", "no such folder/model", "t2v-1.3B@9.9.9", "C:\\gone\\wan", "gone.safetensors"]
)
def test_a_model_that_is_nowhere_is_an_error(check: Check, name: str) -> None:
    assert only(check(base_model_name=name), "base_model", "error").fix


def test_a_repository_that_is_known_is_meant_though_a_folder_is_called_like_its_owner(
    check: Check, tmp_path: Path
) -> None:
    (tmp_path / "Wan-AI").mkdir()
    assert check(base_model_name="Wan-AI/Wan2.1-T2V-1.3B-Diffusers") == []
    only(check(base_model_name="Wan-AI/Wan2.1-T2V-1.4B-Diffusers"), "base_model", "error")


def test_a_folder_without_a_model_is_an_error(check: Check, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no model" in only(check(base_model_name="empty"), "base_model", "error").what


def test_a_whole_model_that_goes_on_from_its_backup_needs_its_base_model_no_more(
    check: Check, check_standalone: Check, tmp_path: Path
) -> None:
    whole = {"training_method": "FINE_TUNE", "learning_rate": 1e-5, "base_model_name": "/gone/model"}
    resumed = {**whole, "continue_last_backup": True}
    only(check(**resumed), "base_model", "error")  # there is no backup yet
    (tmp_path / "workspace" / "backup" / "2026-01-01").mkdir(parents=True)
    assert check(**resumed) == []
    only(check(**whole), "base_model", "error")
    only(check(continue_last_backup=True, base_model_name="/gone/model"), "base_model", "error")  # a LoRA does
    assert [f.rule for f in check_standalone(**resumed)][:1] == ["base_model"]


@pytest.mark.parametrize("field", ["lora_model_name", "vae.model_name", "transformer.model_name"])
def test_weights_beside_the_base_model_are_there(
    check: Check, check_standalone: Check, tmp_path: Path, field: str
) -> None:
    def of(name: str) -> dict[str, Any]:
        part, dot, inner = field.rpartition(".")
        return {part: {inner: name}} if dot else {inner: name}

    assert only(check(**of("gone.safetensors")), "other_weights", "error").field == field
    for name in ("", "owner/repository", "https://host/owner/x.safetensors"):
        assert check(**of(name)) == []
    assert check_standalone(**of("gone.safetensors")) == []  # which loads no such files
    (tmp_path / "there.safetensors").write_bytes(b"")
    assert check(**of("there.safetensors")) == []


def test_a_misspelt_model_folder_is_told_its_neighbour(check: Check, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "Wan2.1", "WAN_2_1_T2V_1_3B")
    assert str(tmp_path / "models" / "Wan2.1") in only(check(base_model_name="models/Wan21"), "base_model", "error").fix
    found = only(check(base_model_name='"models/Wan2.1"'), "base_model", "error")
    assert found.correction is not None and found.correction.value == "models/Wan2.1"


@pytest.mark.parametrize(
    ("name", "is_error"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", False),
        ("owner/model.safetensors", False),
        ("https://huggingface.co/owner/model/blob/main/model.safetensors", False),
        ("/nowhere/sd.safetensors", True),
        ("C:\\models\\sd.safetensors", True),
        ("~/sd", True),
    ],
)
def test_of_other_model_types_only_what_is_a_path_for_certain_has_to_be_there(
    check: Check, name: str, is_error: bool
) -> None:
    found = check(model_type="STABLE_DIFFUSION_15", base_model_name=name)
    assert [f.rule for f in found] == ["base_model"] * is_error


@pytest.mark.parametrize(
    ("name", "correction"),
    [
        ("WAN_2_1_T2V_1.3B", "WAN_2_1_T2V_1_3B"),
        ("wan_2_1_t2v_1_3b", "WAN_2_1_T2V_1_3B"),
        ("WAN_2_1_T2V", None),
        ("", None),
    ],
)
def test_a_model_type_that_onetrainer_would_take_for_another_is_an_error(
    check: Check, name: str, correction: str | None
) -> None:
    found = next(f for f in check(model_type=name) if f.rule == "model_type")
    assert found.severity == "error" and "Stable Diffusion 1.5" in found.why
    assert (None if found.correction is None else found.correction.value) == correction


def test_the_place_of_the_lora_is_looked_at_before_hours_of_training(
    check: Check, check_standalone: Check, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    assert check(output_model_destination="out") == []  # OneTrainer makes a name for the file in it
    assert "is a folder" in only(check_standalone(output_model_destination="out"), "destination", "error").what
    only(check(output_model_destination=" "), "destination", "error")
    (tmp_path / "file").write_bytes(b"")
    assert "is a file" in only(check(output_model_destination="file/lora.safetensors"), "destination", "error").why
    found = only(check(output_model_destination="out/lora"), "destination", "warning")
    assert found.correction is not None and found.correction.value == "out/lora.safetensors"
    assert (
        only(check(output_model_destination="new/"), "destination", "warning").correction is None
    )  # a folder is meant
    assert check(output_model_destination="out/LORA.SAFETENSORS") == []
    folder = {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS", "learning_rate": 1e-5}
    assert check(output_model_destination="out", **folder) == []
    assert "is a file" in only(check(output_model_destination="file", **folder), "destination", "error").what


def test_the_standalone_host_writes_a_file_whatever_the_format(check_standalone: Check, tmp_path: Path) -> None:
    save_file({"lora_A": numpy.zeros(1, numpy.float32)}, tmp_path / "lora.safetensors")
    for kind in ("DIFFUSERS", "INTERNAL"):
        assert check_standalone(output_model_format=kind, output_model_destination="lora.safetensors") == []


def test_what_only_fills_the_cache_needs_no_place_for_a_result(check: Check, check_standalone: Check) -> None:
    assert check(only_cache=True, output_model_destination="") == []
    only(check_standalone(only_cache=True, output_model_destination=""), "destination", "error")


def test_the_file_of_samples_is_needed_by_onetrainer_alone(
    check: Check, check_standalone: Check, tmp_path: Path
) -> None:
    written_out = {"samples": None, "sample_definition_file_name": "samples.json"}
    assert only(check(**written_out), "sample_file", "error").field == "sample_definition_file_name"
    assert check_standalone(**written_out) == check(samples=[], sample_definition_file_name="samples.json") == []
    (tmp_path / "samples.json").write_text("[]", encoding="utf-8")
    assert check(**written_out) == []


def test_an_earlier_lora_may_be_replaced_and_nothing_else(check: Check, tmp_path: Path) -> None:
    weights = {"x": numpy.zeros(1, numpy.float32)}
    save_file({"diffusion_model.blocks.0.lora_A.weight": weights["x"]}, tmp_path / "lora.safetensors")
    save_file(weights, tmp_path / "whole.safetensors")
    (tmp_path / "letter.safetensors").write_text("dear diary", encoding="utf-8")
    assert check(output_model_destination="lora.safetensors") == []
    assert "a whole model" in only(check(output_model_destination="whole.safetensors"), "destination", "error").what
    only(check(output_model_destination="letter.safetensors"), "destination", "error")
    assert check(output_model_destination="whole.safetensors", prevent_overwrites=True) == []


@pytest.mark.parametrize("field", ["workspace_dir", "cache_dir"])
def test_a_folder_to_write_to_is_no_file_and_has_a_name(check: Check, tmp_path: Path, field: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert only(check(**{field: "file/below"}), "written_folders", "error").field == field
    assert only(check(**{field: ""}), "written_folders", "error").field == field


def test_samples_among_the_clips_are_told(check: Check, tmp_path: Path) -> None:
    deep = [{"path": "clips", "include_subdirectories": True}]
    found = only(check(concepts=deep, workspace_dir="clips/run"), "own_output_as_data", "warning")
    assert found.field == "workspace_dir"
    assert check(workspace_dir="clips/run") == []  # its subfolders do not count
    only(check(workspace_dir="clips"), "own_output_as_data", "warning")
    only(check(concepts=deep, cache_dir="clips/cache"), "own_output_as_data", "warning")
    make_clips(tmp_path / "run" / "clips")
    assert check(concepts=[{"path": "run/clips"}], workspace_dir="run") == []


def test_clips_do_not_lie_where_onetrainer_deletes(check: Check, check_standalone: Check, tmp_path: Path) -> None:
    make_clips(tmp_path / "cache" / "image")
    make_clips(tmp_path / "cache" / "mine")
    found = only(check(concepts=[{"path": "cache/image"}]), "own_output_as_data", "error")
    assert "deletes" in found.why
    for kept in ({"clear_cache_before_training": False}, {"latent_caching": False}):
        found = next(f for f in check(concepts=[{"path": "cache/image"}], **kept) if f.field == "cache_dir")
        assert found.severity == "warning"
    only(check_standalone(concepts=[{"path": "cache/image"}]), "own_output_as_data", "warning")
    assert check(concepts=[{"path": "cache/mine"}]) == []


def test_a_cache_on_a_network_drive_is_a_warning(check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        filesystem, "_mounts", lambda: [("/", "ext4", "disk"), (str(tmp_path / "cache"), "nfs4", "nas:/")]
    )
    monkeypatch.setattr(filesystem.sys, "platform", "linux")
    assert "nfs4" in only(check(), "network_cache", "warning").what
    assert check(cache_dir="local") == []
