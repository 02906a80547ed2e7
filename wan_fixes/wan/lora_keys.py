"""What other programs call the weights of a WAN LoRA: diffusers, ComfyUI, kohya (musubi-tuner), OneTrainer.

| format | one layer's keys |
|---|---|
| `DIFFUSERS_LORA` | `transformer.blocks.0.attn1.to_q.lora_A.weight`, `.lora_B.weight` |
| `COMFY_LORA` | `diffusion_model.blocks.0.self_attn.q.lora_A.weight`, `.lora_B.weight` |
| `KOHYA_LORA` | `lora_unet_blocks_0_self_attn_q.lora_down.weight`, `.lora_up.weight`, `.alpha` |

ComfyUI reads the last two, which name layers as WAN's own code does (`LAYER_NAMES`). diffusers reads all three, but
Comfy's only with some layer of a block in it, and kohya's only with the attention and feed-forward of every block and
nothing else.

A layer grows by `alpha / rank * B A`, and where no alpha is given it is the rank. We keep alpha folded into B
(`lora.py`): Comfy's format gets none, and kohya's, whose readers ask for one, gets the rank. So all of them hold the
same numbers.

Sources: ComfyUI's `comfy/lora.py` (`model_lora_keys_unet`: a layer's name with `diffusion_model.`, or flattened with
`lora_unet_`) and `comfy/weight_adapter/lora.py` (`lora_A`/`lora_B` or `lora_down`/`lora_up`, `alpha` if there is one);
musubi-tuner's `convert_lora.py`; diffusers' `loaders/lora_conversion_utils.py`. Never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from wan_fixes.errors import UserError

if TYPE_CHECKING:
    import torch

LoraFormat = Literal["DIFFUSERS_LORA", "COMFY_LORA", "KOHYA_LORA"]
"""By OneTrainer's names, so that a preset means the same in both hosts."""

LORA_FORMATS: tuple[LoraFormat, ...] = get_args(LoraFormat)

LAYER_NAMES: tuple[tuple[str, str], ...] = (
    *(
        (f"blocks.{{i}}.{ours}.{layer}", f"blocks.{{i}}.{theirs}.{original}")
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for layer, original in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))
    ),
    ("blocks.{i}.attn2.add_k_proj", "blocks.{i}.cross_attn.k_img"),
    ("blocks.{i}.attn2.add_v_proj", "blocks.{i}.cross_attn.v_img"),
    ("blocks.{i}.ffn.net.0.proj", "blocks.{i}.ffn.0"),
    ("blocks.{i}.ffn.net.2", "blocks.{i}.ffn.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("proj_out", "head.head"),
)
"""Every linear layer of WAN's transformer: diffusers' name, and that of WAN's own code. `{i}` is the block's number."""

_ORIGINAL = dict(LAYER_NAMES)
_DIFFUSERS = {original: ours for ours, original in LAYER_NAMES}
_FLATTENED = {original.replace(".", "_"): ours for ours, original in LAYER_NAMES}

_DIFFUSERS_PREFIX, _COMFY_PREFIX, _KOHYA_PREFIX = "transformer.", "diffusion_model.", "lora_unet_"
_MATRICES = {
    "lora_A.weight": "A",
    "lora_down.weight": "A",
    "lora_B.weight": "B",
    "lora_up.weight": "B",
    "alpha": "alpha",
}
_KEY = re.compile(rf"(?P<layer>.+)\.(?P<matrix>{'|'.join(re.escape(name) for name in _MATRICES)})")


def lora_to_format(state: Mapping[str, torch.Tensor], lora_format: LoraFormat) -> dict[str, torch.Tensor]:
    """A LoRA with diffusers' keys, by the names of another program.

    Parameters
    ----------
    state:
        `lora_state_dict`'s: keys that begin with `transformer.`, alpha folded in. Of one expert: two are two files.

    Returns
    -------
    The same tensors under their new names; kohya's format has an `alpha` (fp32 number, the rank) for each layer.

    Raises
    ------
    UserError
        If a layer has no name in that format.
    """
    if lora_format == "DIFFUSERS_LORA":
        return dict(state)
    renamed = {}
    for layer, (down, up) in _read(state, None).items():
        original = _translate(layer, _ORIGINAL)
        if original is None:
            raise _unknown(layer, None)
        if lora_format == "COMFY_LORA":
            renamed[f"{_COMFY_PREFIX}{original}.lora_A.weight"] = down
            renamed[f"{_COMFY_PREFIX}{original}.lora_B.weight"] = up
        else:
            flat = _KOHYA_PREFIX + original.replace(".", "_")
            renamed[f"{flat}.lora_down.weight"] = down
            renamed[f"{flat}.lora_up.weight"] = up
            renamed[f"{flat}.alpha"] = down.new_zeros(()).float().fill_(down.shape[0])
    return renamed


def lora_to_diffusers(state: Mapping[str, torch.Tensor], *, path: Path | str | None = None) -> dict[str, torch.Tensor]:
    """A LoRA in any of the formats, by diffusers' names and with alpha folded into `lora_B`.

    Read are the three formats with either spelling of the matrices, with and without alpha; Comfy's also without its
    prefix, as in OneTrainer's `ORIGINAL_LORA`; and OneTrainer's own: diffusers' names, `lora_down`, `lora_up`, `alpha`.

    Parameters
    ----------
    path:
        Where it came from, for the message.

    Returns
    -------
    `transformer.….lora_A.weight` and `.lora_B.weight` for each layer, in the dtype that they had.

    Raises
    ------
    UserError
        If it is no WAN LoRA, half a LoRA, another kind of adapter, or of two experts at once.
    """
    result = {}
    for layer, (down, up) in _read(state, path).items():
        result[f"{_DIFFUSERS_PREFIX}{layer}.lora_A.weight"] = down
        result[f"{_DIFFUSERS_PREFIX}{layer}.lora_B.weight"] = up
    return result


def _read(state: Mapping[str, torch.Tensor], path: Path | str | None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of each layer by diffusers' name of the layer, alpha folded into B."""
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise _unknown(key, path)
        layer = _diffusers_layer(match["layer"])
        if layer is None:
            raise _unknown(key, path)
        matrices = layers.setdefault(layer, {})
        if matrices.setdefault(_MATRICES[match["matrix"]], tensor) is not tensor:
            raise _unreadable(path, f"the layer {layer} is in it twice", "export it again, in one format")
    return {layer: _fold(layer, matrices, path) for layer, matrices in layers.items()}


def _fold(
    layer: str, matrices: Mapping[str, torch.Tensor], path: Path | str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    down, up, alpha = (matrices.get(name) for name in ("A", "B", "alpha"))
    if down is None or up is None:
        raise _unreadable(path, f"half of the layer {layer} is missing", "download or export it again")
    rank = down.shape[0] if down.ndim else 0
    if down.ndim != 2 or up.ndim != 2 or up.shape[1] != rank or (alpha is not None and alpha.numel() != 1):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(matrices.items()))
        raise _unreadable(path, f"the parts of {layer} do not fit together: {shapes}", "download or export it again")
    if alpha is None or alpha.item() == rank:
        return down, up
    return down, (up.float() * (alpha.item() / rank)).to(up.dtype)


def _diffusers_layer(name: str) -> str | None:
    """diffusers' name of the layer that a key names with any prefix; None if it names no layer of WAN."""
    if name.startswith(_KOHYA_PREFIX):
        return _translate(name.removeprefix(_KOHYA_PREFIX), _FLATTENED)
    if name.startswith(_DIFFUSERS_PREFIX):
        layer = name.removeprefix(_DIFFUSERS_PREFIX)
        return None if _translate(layer, _ORIGINAL) is None else layer
    return _translate(name.removeprefix(_COMFY_PREFIX), _DIFFUSERS)


def _translate(layer: str, names: Mapping[str, str]) -> str | None:
    match = re.match(r"blocks([._])(\d+)\1", layer)
    if match is None:
        return names.get(layer)
    separator, number = match.groups()
    translated = names.get(f"blocks{separator}{{i}}{separator}{layer[match.end() :]}")
    return None if translated is None else translated.replace("{i}", number)


def _unknown(key: str, path: Path | str | None) -> UserError:
    if key.startswith("transformer_2."):
        return _unreadable(path, "it holds the low-noise expert too", "split it into a file for each expert")
    return _unreadable(
        path, f"{key!r} is no LoRA weight of a layer of WAN", "name a LoRA (no LoHa, LoKr or DoRA) made for WAN"
    )


def _unreadable(path: Path | str | None, reason: str, fix: str) -> UserError:
    return UserError("the LoRA cannot be read", path=path, reason=reason, fix=fix)
