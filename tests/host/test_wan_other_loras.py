"""A LoRA of another variant, of other layers or of another kind is no LoRA to go on from, and the error says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_clips(tmp_path_factory.mktemp("clips"), 1)


@pytest.fixture(scope="module")
def lora(runs: Any, tiny_wan: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the attention and feed-forward layers of 2.1 text-to-video, with its backup beside it."""
    work = tmp_path_factory.mktemp("lora")
    runs.train(runs.configuration(tiny_wan, clips, work, backup_before_save=True))
    return work / "lora.safetensors"


def refused(runs: Any, model: Path, clips: Path, work: Path, lora: Path, **changes: Any) -> str:
    from wan_fixes.errors import UserError

    with pytest.raises(UserError) as caught:
        runs.train(runs.configuration(model, clips, work, lora_model_name=str(lora), **changes))
    assert caught.value.path == str(lora)
    assert caught.value.fix
    return str(caught.value)


def test_a_lora_for_text_to_video_is_refused_for_image_to_video_with_the_layers_that_it_lacks(
    runs: Any, lora: Path, tiny_wan_i2v: Path, clips: Path, tmp_path: Path
) -> None:
    said = refused(runs, tiny_wan_i2v, clips, tmp_path, lora, model_type="WAN_2_1_I2V_14B")

    assert "add_k_proj" in said
    assert "a LoRA of this model type" in said


def test_a_lora_for_image_to_video_is_refused_for_text_to_video(
    runs: Any, tiny_wan: Path, tiny_wan_i2v: Path, clips: Path, tmp_path: Path
) -> None:
    runs.train(runs.configuration(tiny_wan_i2v, clips, tmp_path / "i2v", model_type="WAN_2_1_I2V_14B"))
    said = refused(runs, tiny_wan, clips, tmp_path, tmp_path / "i2v" / "lora.safetensors")

    assert "the model has no layer" in said
    assert "add_" in said


def test_a_lora_of_fewer_layers_than_are_trained_is_refused(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    fewer = {"layer_filter": "attn1", "layer_filter_preset": "custom"}
    runs.train(runs.configuration(tiny_wan, clips, tmp_path / "fewer", **fewer))
    said = refused(runs, tiny_wan, clips, tmp_path, tmp_path / "fewer" / "lora.safetensors")

    assert "no weights for 12 (transformer.blocks.0.attn2." in said
    assert "of the 20 layers to train" in said
    assert "layer_filter" in said


@pytest.mark.parametrize("source", ["file", "backup"])
def test_a_lora_of_more_layers_than_are_trained_is_refused(
    runs: Any, lora: Path, tiny_wan: Path, clips: Path, tmp_path: Path, source: str
) -> None:
    path = lora if source == "file" else next((lora.parent / "workspace" / "backup").iterdir())
    fewer = {"layer_filter": "attn1", "layer_filter_preset": "custom"}
    said = refused(runs, tiny_wan, clips, tmp_path, path, **fewer)

    assert "layer_filter leaves out 12 (transformer.blocks.0.attn2." in said
    assert "of its 20 layers" in said


def test_a_lora_is_refused_where_an_adapter_of_another_kind_is_trained(
    runs: Any, lora: Path, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    said = refused(runs, tiny_wan, clips, tmp_path, lora, lora_decompose=True)

    assert "dora_scale" in said
    assert "set peft_type and lora_decompose" in said


def test_a_lora_of_the_same_layers_is_gone_on_from(
    runs: Any, lora: Path, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    import torch

    config = runs.configuration(tiny_wan, clips, tmp_path, lora_model_name=str(lora), learning_rate=0.0)
    model = runs.train(config).trainer.model
    from safetensors.torch import load_file

    before, after = load_file(lora), load_file(tmp_path / "lora.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-7) for name in before)
    assert model.lora_files == {"transformer": lora}


def test_an_adapter_of_an_expert_that_is_left_out_is_not_left_out_in_silence(
    runs: Any, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"model_type": "WAN_2_2_T2V_A14B", "backup_before_save": True}
    runs.train(runs.configuration(tiny_wan_two_experts, clips, tmp_path, **settings))
    assert "left out" not in caplog.text
    alone = settings | {"transformer_2": {"include": False}, "continue_last_backup": True, "epochs": 2}
    runs.train(runs.configuration(tiny_wan_two_experts, clips, tmp_path, **alone))

    assert "weights for transformer_2 are left out" in caplog.text
