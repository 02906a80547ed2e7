"""LoRA formats: every one holds the same numbers, and other programs find them where they look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.wan.lora import add_lora, lora_state_dict, save_lora
from wan_fixes.wan.lora_keys import LAYER_NAMES, LORA_FORMATS, lora_to_diffusers, lora_to_format

RANK, ALPHA = 4, 7.0
OTHERS = ("COMFY_LORA", "KOHYA_LORA")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


layers = st.sets(
    st.one_of(
        st.tuples(st.sampled_from([name for name, _ in LAYER_NAMES if "{i}" in name]), st.integers(0, 120)).map(
            lambda pair: pair[0].format(i=pair[1])
        ),
        st.sampled_from([name for name, _ in LAYER_NAMES if "{i}" not in name]),
    ),
    min_size=1,
    max_size=12,
)


@st.composite
def loras(draw: Any) -> dict[str, torch.Tensor]:
    """LoRAs of any selection of layers, ranks and precisions, with diffusers' keys."""
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    state = {}
    for number, layer in enumerate(sorted(draw(layers))):
        rank = draw(st.integers(1, 9))
        state[f"transformer.{layer}.lora_A.weight"] = normal(rank, 3, seed=number).to(dtype)
        state[f"transformer.{layer}.lora_B.weight"] = normal(2, rank, seed=number + 1000).to(dtype)
    return state


def product(state: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    down, up = (state[f"transformer.{layer}.lora_{half}.weight"].double() for half in "AB")
    return up @ down


@given(state=loras(), lora_format=st.sampled_from(LORA_FORMATS))
def test_a_lora_comes_back_to_the_bit_from_every_format(state, lora_format):
    converted = lora_to_format(state, lora_format)
    assert same(lora_to_diffusers(converted), state)
    assert same(lora_to_format(lora_to_diffusers(converted), lora_format), converted)


@given(state=loras(), data=st.data())
def test_whatever_alpha_and_spelling_a_file_has_its_effect_is_kept(state, data):
    """`alpha / rank * B A` as the writer meant it, for a file with alphas of its own."""
    state = {key: tensor.float() for key, tensor in state.items()}
    foreign, effects = {}, {}
    spelling = data.draw(st.sampled_from([("lora_A", "lora_B"), ("lora_down", "lora_up")]))
    prefix = data.draw(st.sampled_from(["diffusion_model.", "", "transformer."]))
    renamed = state if prefix == "transformer." else lora_to_format(state, "COMFY_LORA")
    for (key, tensor), ours in zip(renamed.items(), state, strict=True):
        name = key.removeprefix("diffusion_model.") if prefix == "" else key
        foreign[name.replace("lora_A", spelling[0]).replace("lora_B", spelling[1])] = tensor
        if "lora_A" in key:
            layer = ours.removeprefix("transformer.").removesuffix(".lora_A.weight")
            alpha = data.draw(st.one_of(st.none(), st.floats(0.125, 64, width=32)))
            if alpha is not None:
                foreign[name.replace("lora_A.weight", "alpha")] = torch.tensor(alpha)
            scale = 1.0 if alpha is None else alpha / tensor.shape[0]
            effects[layer] = scale * product(state, layer)
    read = lora_to_diffusers(foreign)
    for layer, effect in effects.items():
        assert torch.allclose(product(read, layer), effect, rtol=1e-5, atol=1e-6)


def test_every_linear_layer_of_wan_has_a_name_in_every_format(tiny_wan_i2v):
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel.from_pretrained(tiny_wan_i2v, subfolder="transformer")
    names = {name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}
    assert names == {name.replace("{i}", str(block)) for name, _ in LAYER_NAMES for block in range(2)}


@pytest.mark.parametrize("lora_format", OTHERS)
def test_the_names_are_those_of_wans_own_code(lora_format):
    """Held against diffusers' conversion of released single-file checkpoints, which has WAN's names from elsewhere."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    state = {}
    for number, (name, _) in enumerate(LAYER_NAMES):
        layer = name.replace("{i}", "17")
        state[f"transformer.{layer}.lora_A.weight"] = normal(RANK, 3, seed=number)
        state[f"transformer.{layer}.lora_B.weight"] = normal(2, RANK, seed=number + 100)
    written = lora_to_format(state, lora_format)
    checkpoint = {original.replace("{i}", "17"): torch.zeros(1) for _, original in LAYER_NAMES}
    deltas = comfy_deltas(written, list(checkpoint))
    assert deltas.keys() == checkpoint.keys()
    converted = convert_wan_transformer_to_diffusers({f"{name}.weight": delta for name, delta in deltas.items()})
    expected = {
        key.removeprefix("transformer.").replace(".lora_A", ""): state[key.replace("lora_A", "lora_B")] @ down
        for key, down in state.items()
        if "lora_A" in key
    }
    assert same(converted, expected)


def comfy_deltas(file: dict[str, torch.Tensor], model_layers: list[str]) -> dict[str, torch.Tensor]:
    """What ComfyUI would add to each layer of its model, by the rules of its loader; every key has to be used."""
    used, deltas = set(), {}
    for layer in model_layers:
        for name in (f"diffusion_model.{layer}", "lora_unet_" + layer.replace(".", "_")):
            for up, down in (("lora_up.weight", "lora_down.weight"), ("lora_B.weight", "lora_A.weight")):
                if f"{name}.{up}" in file:
                    alpha = file.get(f"{name}.alpha")
                    scale = 1.0 if alpha is None else alpha.item() / file[f"{name}.{down}"].shape[0]
                    deltas[layer] = scale * (file[f"{name}.{up}"] @ file[f"{name}.{down}"])
                    used |= {f"{name}.{up}", f"{name}.{down}", f"{name}.alpha"}
    assert file.keys() <= used
    return deltas


def trained(folder: Path, part: str = "transformer", *, seed: int = 0) -> dict[str, torch.Tensor]:
    """A LoRA over all linear layers of the blocks, its B no longer zero."""
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel.from_pretrained(folder, subfolder=part)
    blocks = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    add_lora(transformer, RANK, ALPHA, [name for name in blocks if name.startswith("blocks.")])
    with torch.no_grad():
        for number, (name, weight) in enumerate(transformer.named_parameters()):
            if "lora_B" in name:
                weight.copy_(0.3 * normal(*weight.shape, seed=seed + number))
    return lora_state_dict(transformer)


def output(transformer: Any) -> torch.Tensor:
    config = transformer.config
    inputs = {
        "hidden_states": normal(1, config.in_channels, 2, 4, 4, seed=1),
        "timestep": torch.tensor([600.0]),
        "encoder_hidden_states": normal(1, 512, config.text_dim, seed=2),
    }
    if config.image_dim is not None:
        inputs["encoder_hidden_states_image"] = normal(1, 17, config.image_dim, seed=3)
    with torch.no_grad():
        return transformer(**inputs).sample


def loaded_output(pipeline: Any, part: str, path: Path) -> torch.Tensor:
    """The output with a file, which is unloaded again.

    The weights are copied first: diffusers maps them from the file, and how a matrix product is rounded hangs on where
    in memory its operands begin, which differs with the length of the file's header.
    """
    pipeline.load_lora_weights(path, load_into_transformer_2=part == "transformer_2")
    transformer = getattr(pipeline, part)
    for name, weight in transformer.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.clone()
    result = output(transformer)
    pipeline.unload_lora_weights()
    return result


@pytest.mark.parametrize(
    ("model", "pipeline_class", "part"),
    [
        ("tiny_wan", "WanPipeline", "transformer"),
        ("tiny_wan_i2v", "WanImageToVideoPipeline", "transformer"),
        ("tiny_wan_i2v_two_experts", "WanImageToVideoPipeline", "transformer"),
        ("tiny_wan_i2v_two_experts", "WanImageToVideoPipeline", "transformer_2"),
        ("tiny_wan_ti2v", "WanPipeline", "transformer"),
    ],
)
def test_every_format_does_the_same_in_diffusers(request, tmp_path, model, pipeline_class, part):
    import diffusers

    folder = request.getfixturevalue(model)
    state = trained(folder, part)
    outputs = {}
    pipeline = getattr(diffusers, pipeline_class).from_pretrained(folder)
    base = output(getattr(pipeline, part))
    for lora_format in LORA_FORMATS:
        path = save_lora(tmp_path / f"{lora_format}.safetensors", lora_to_format(state, lora_format), {"format": "pt"})
        outputs[lora_format] = loaded_output(pipeline, part, path)
    assert (outputs["DIFFUSERS_LORA"] - base).abs().max() > 1e-3
    for lora_format in OTHERS:
        assert (outputs[lora_format] - outputs["DIFFUSERS_LORA"]).abs().max() == 0


def test_a_comfy_lora_of_some_layers_and_of_those_outside_of_the_blocks_loads_in_diffusers(tiny_wan, tmp_path):
    from diffusers import WanPipeline

    names = [
        "blocks.1.attn2.to_v",
        "proj_out",
        "condition_embedder.time_proj",
        "condition_embedder.text_embedder.linear_2",
    ]
    pipeline = WanPipeline.from_pretrained(tiny_wan)
    state = {}
    for number, name in enumerate(names):
        layer = pipeline.transformer.get_submodule(name)
        state[f"transformer.{name}.lora_A.weight"] = normal(RANK, layer.in_features, seed=number)
        state[f"transformer.{name}.lora_B.weight"] = normal(layer.out_features, RANK, seed=number)
    outputs = []
    for lora_format in ("DIFFUSERS_LORA", "COMFY_LORA"):
        path = save_lora(tmp_path / f"{lora_format}.safetensors", lora_to_format(state, lora_format), {"format": "pt"})
        outputs.append(loaded_output(pipeline, "transformer", path))
    assert (outputs[0] - outputs[1]).abs().max() == 0
    assert (outputs[0] - output(pipeline.transformer)).abs().max() > 1e-3


A, B = normal(4, 3), normal(2, 4)
LAYER = "diffusion_model.blocks.0.ffn.0"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({f"{LAYER}.lora_A.weight": A}, "half"),
        ({f"{LAYER}.alpha": torch.tensor(4.0)}, "half"),
        ({f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": normal(2, 5)}, "do not fit"),
        ({f"{LAYER}.lora_A.weight": torch.tensor(1.0), f"{LAYER}.lora_B.weight": B}, "do not fit"),
        ({f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": B, f"{LAYER}.alpha": torch.ones(2)}, "do not fit"),
        ({f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_down.weight": A.clone()}, "twice"),
        ({f"{LAYER}.hada_w1_a": A}, "hada_w1_a"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": A}, "double_blocks"),
        ({"transformer.blocks.0.attn3.to_q.lora_A.weight": A}, "attn3"),
        ({"transformer_2.blocks.0.attn1.to_q.lora_A.weight": A}, "low-noise"),
        ({"blocks.x.ffn.0.lora_A.weight": A}, "blocks.x"),
    ],
)
def test_what_is_no_wan_lora_is_refused_with_its_file_and_the_reason(state, reason):
    with pytest.raises(UserError, match=reason) as caught:
        lora_to_diffusers(state, path="some.safetensors")
    assert caught.value.path == "some.safetensors"
    assert caught.value.fix


def test_a_layer_without_a_name_in_a_format_is_refused_when_writing():
    with pytest.raises(UserError, match="patch_embedding"):
        lora_to_format({"transformer.patch_embedding.lora_A.weight": A}, "COMFY_LORA")


def test_nothing_is_read_as_nothing():
    assert lora_to_diffusers({}) == {}
