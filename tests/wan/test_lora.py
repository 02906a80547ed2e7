"""LoRA: which layers, what the file does in diffusers, and resuming to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wan_fixes.errors import CriticalError, UserError
from wan_fixes.wan.lora import (
    adapter_state,
    add_lora,
    load_adapter_state,
    load_lora,
    lora_metadata,
    lora_state_dict,
    save_lora,
    select_target_modules,
)
from wan_fixes.wan.variants import get_variant

RANK, ALPHA = 4, 7.0


def fresh_transformer(folder: Path, subfolder: str = "transformer", **options):
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel.from_pretrained(folder, subfolder=subfolder, **options)


def perturb(transformer, seed: int = 0) -> None:
    """What training would do: B is zero at the start, and the model unchanged."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def output(transformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 16, 2, 4, 4, generator=generator)
    text = torch.randn(1, 8, 32, generator=generator)
    with torch.no_grad():
        return transformer.eval()(latents, torch.tensor([600.0]), text).sample


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.fixture
def transformer(tiny_wan):
    return fresh_transformer(tiny_wan)


@pytest.fixture
def trained(transformer):
    add_lora(transformer, RANK, ALPHA)
    perturb(transformer)
    return transformer


def test_attention_and_feed_forward_of_every_block_are_trained_by_default(transformer):
    names = select_target_modules(transformer)
    assert len(names) == 2 * 10
    assert {"blocks.0.attn1.to_q", "blocks.1.attn2.to_out.0", "blocks.0.ffn.net.0.proj", "blocks.1.ffn.net.2"} < set(
        names
    )
    add_lora(transformer, RANK, ALPHA)
    assert {name.rsplit(".lora_A", 1)[0] for name in adapter_state(transformer) if ".lora_A" in name} == set(names)


@pytest.mark.parametrize(
    ("layer_filter", "regex", "expected"),
    [
        ("attn2.to_v", False, {"blocks.0.attn2.to_v", "blocks.1.attn2.to_v"}),
        (
            " blocks.1.ffn , blocks.0.attn1.to_q,",
            False,
            {"blocks.0.attn1.to_q", "blocks.1.ffn.net.0.proj", "blocks.1.ffn.net.2"},
        ),
        (("blocks.0.attn1.to_k",), False, {"blocks.0.attn1.to_k"}),
        (r"blocks\.[1-9]\.attn[12]\.to_k$", True, {"blocks.1.attn1.to_k", "blocks.1.attn2.to_k"}),
        ("proj_out", False, {"proj_out"}),
    ],
)
def test_a_layer_filter_selects_by_parts_of_names_or_expressions(transformer, layer_filter, regex, expected):
    assert set(select_target_modules(transformer, layer_filter, regex=regex)) == expected


@pytest.mark.parametrize(
    ("layer_filter", "regex", "names"),
    [("attn3", False, "attn3"), ("attn1, typo", False, "typo"), ("a.tn1", False, "a.tn1"), ("attn(", True, "attn\\(")],
)
def test_a_filter_that_matches_nothing_or_cannot_be_read_is_named(transformer, layer_filter, regex, names):
    with pytest.raises(UserError, match=names) as caught:
        select_target_modules(transformer, layer_filter, regex=regex)
    assert "layer_filter" in caught.value.fix


def test_only_the_adapter_is_trained_and_it_changes_nothing_at_first(tiny_wan, transformer):
    base = output(transformer)
    parameters = add_lora(transformer, RANK, ALPHA, dropout=0.1)
    assert {id(p) for p in parameters} == {id(p) for p in transformer.parameters() if p.requires_grad}
    assert len(parameters) == 2 * 20
    assert torch.equal(output(transformer), base)


def test_the_first_values_hang_on_the_seed_alone(tiny_wan):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(states))
        transformer = fresh_transformer(tiny_wan)
        add_lora(transformer, RANK, ALPHA, seed=seed)
        states.append(adapter_state(transformer)["blocks.0.attn1.to_q.lora_A.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_adapter_is_fp32_over_a_bf16_model_and_runs(tiny_wan):
    transformer = fresh_transformer(tiny_wan, torch_dtype=torch.bfloat16)
    parameters = add_lora(transformer, RANK, ALPHA)
    assert {p.dtype for p in parameters} == {torch.float32}
    latents, text = torch.randn(1, 16, 2, 4, 4).bfloat16(), torch.randn(1, 8, 32).bfloat16()
    prediction = transformer(latents, torch.tensor([600.0]), text).sample
    assert prediction.dtype == torch.bfloat16
    prediction.float().square().mean().backward()
    assert any(p.grad.abs().sum() > 0 for p in parameters if p.grad is not None)


def test_a_rank_below_one_is_refused(transformer):
    with pytest.raises(UserError, match="rank"):
        add_lora(transformer, 0, 1.0)


def test_the_keys_are_diffusers_keys(trained):
    state = lora_state_dict(trained)
    assert set(list(state)[:2]) == {
        "transformer.blocks.0.attn1.to_q.lora_A.weight",
        "transformer.blocks.0.attn1.to_q.lora_B.weight",
    }
    assert len(state) == 40
    assert all(key.startswith("transformer_2.blocks.") for key in lora_state_dict(trained, "transformer_2"))


def test_the_file_in_a_fresh_pipeline_gives_the_trainers_output(tiny_wan, trained, tmp_path):
    from diffusers import WanPipeline

    path = save_lora(tmp_path / "lora.safetensors", lora_state_dict(trained), {"format": "pt"})
    pipeline = WanPipeline.from_pretrained(tiny_wan)
    base = output(pipeline.transformer)
    pipeline.load_lora_weights(path)
    assert difference(output(pipeline.transformer), output(trained)) < 1e-5
    assert difference(output(trained), base) > 1e-3


def test_without_folding_alpha_the_file_would_be_wrong(tiny_wan, trained, tmp_path):
    """Guards the test above: it could not tell if alpha / rank hardly mattered."""
    from diffusers import WanPipeline

    raw = {f"transformer.{name}": weight for name, weight in adapter_state(trained).items()}
    path = save_lora(tmp_path / "raw.safetensors", raw, {"format": "pt"})
    pipeline = WanPipeline.from_pretrained(tiny_wan)
    pipeline.load_lora_weights(path)
    assert difference(output(pipeline.transformer), output(trained)) > 1e-3


def test_each_experts_lora_reaches_its_own_expert(tiny_wan_two_experts, tmp_path):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(tiny_wan_two_experts)
    outputs = {}
    for seed, part in enumerate(("transformer", "transformer_2")):
        expert = fresh_transformer(tiny_wan_two_experts, part)
        add_lora(expert, RANK, ALPHA)
        perturb(expert, seed)
        outputs[part] = output(expert)
        path = save_lora(tmp_path / f"{part}.safetensors", lora_state_dict(expert), {"format": "pt"})
        pipeline.load_lora_weights(path, load_into_transformer_2=part == "transformer_2", adapter_name=part)
    assert difference(output(pipeline.transformer), outputs["transformer"]) < 1e-5
    assert difference(output(pipeline.transformer_2), outputs["transformer_2"]) < 1e-5


def test_the_adapters_state_comes_back_to_the_bit(tiny_wan, trained):
    state = adapter_state(trained)
    other = fresh_transformer(tiny_wan)
    add_lora(other, RANK, ALPHA, seed=99)
    load_adapter_state(other, state)
    assert all(torch.equal(weight, state[name]) for name, weight in adapter_state(other).items())
    assert torch.equal(output(other), output(trained))


def test_a_saved_state_does_not_change_when_training_goes_on(trained):
    state = adapter_state(trained)
    name = next(name for name in state if "lora_B" in name)
    before = state[name].clone()
    perturb(trained, seed=5)
    assert torch.equal(state[name], before)


@pytest.mark.parametrize("change", ["rank", "layers"])
def test_a_state_of_another_adapter_is_refused_and_changes_nothing(tiny_wan, trained, change):
    other = fresh_transformer(tiny_wan)
    add_lora(other, RANK + (change == "rank"), ALPHA, ["attn1.to_q"] if change == "layers" else None)
    before = adapter_state(other)
    with pytest.raises(UserError, match="does not fit") as caught:
        load_adapter_state(other, adapter_state(trained), path="checkpoint")
    assert caught.value.path == "checkpoint"
    assert all(torch.equal(weight, before[name]) for name, weight in adapter_state(other).items())


def test_a_file_tells_what_it_was_trained_on_and_comes_back_whole(trained, tmp_path):
    state = lora_state_dict(trained, dtype=torch.bfloat16)
    metadata = lora_metadata(get_variant("WAN_2_1_T2V_1_3B"), rank=RANK, alpha=ALPHA, steps=20)
    path = save_lora(tmp_path / "deep" / "lora.safetensors", state, metadata)
    loaded, header = load_lora(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == torch.bfloat16 for name in state)
    assert header == metadata
    assert (header["base_model"], header["rank"], header["alpha"], header["steps"]) == (
        "WAN_2_1_T2V_1_3B",
        "4",
        "7.0",
        "20",
    )


def fail_after_half(state, path, metadata):
    Path(path).write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(trained, tmp_path, monkeypatch):
    path = save_lora(tmp_path / "lora.safetensors", lora_state_dict(trained), {})
    earlier = path.read_bytes()
    monkeypatch.setattr("safetensors.torch.save_file", fail_after_half)
    with pytest.raises(CriticalError, match="No space left") as caught:
        save_lora(path, lora_state_dict(trained), {})
    assert caught.value.path == str(path)
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(trained, tmp_path):
    (tmp_path / "models").write_text("in the way", encoding="utf-8")
    with pytest.raises(CriticalError, match="models"):
        save_lora(tmp_path / "models" / "lora.safetensors", lora_state_dict(trained), {})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_lora_never_replaces_a_good_one(trained, tmp_path, value):
    path = save_lora(tmp_path / "lora.safetensors", lora_state_dict(trained), {})
    earlier = path.read_bytes()
    state = lora_state_dict(trained)
    name = next(iter(state))
    state[name][0, 0] = value
    with pytest.raises(CriticalError, match="not finite") as caught:
        save_lora(path, state, {})
    assert name in caught.value.reason
    assert path.read_bytes() == earlier


@pytest.mark.parametrize("content", [None, b"", b"not a safetensors file, but text", b"\xff" * 64])
def test_a_file_that_is_no_lora_is_named(tmp_path, content):
    path = tmp_path / "lora.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"lora\.safetensors") as caught:
        load_lora(path)
    assert caught.value.reason and caught.value.fix
