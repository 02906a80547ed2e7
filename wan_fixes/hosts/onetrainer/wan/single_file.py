"""A transformer in a file of its own: safetensors or GGUF, with diffusers' names or those of WAN's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig, WanTransformer3DModel
from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, GGUFLinear, GGUFParameter, dequantize_gguf_tensor

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.model_files import Part
from wan_fixes.wan.weight_files import StoredTensor, WeightFileError, read_gguf_header, read_header

_SUFFIXES = {".safetensors": read_header, ".gguf": read_gguf_header}
_OWN_NAMES = "self_attn"
"""Part of a layer's name in WAN's own code, and nowhere in diffusers' names."""
_SCALES = ("scaled_fp8", "scale_weight", "weight_scale", "comfy_quant")
"""Last in the names of what ComfyUI's quantised safetensors hold beside the weights."""
_GGUF_SCALES = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
"""Where in a block of GGUF's quantised types its fp16 numbers lie, in bytes (`block_…` in ggml-common.h).

All else in a block are whole numbers, so that these alone say whether a weight is finite.
"""


def check_transformer_file(part: str, file: str, dtype: Any, config: dict[str, Any]) -> Part | None:
    """Compare a file's header with what the transformer's configuration needs, before any weight is read.

    Returns its tensors by diffusers' names; None for a file on the Hub, of which only the name is looked at.

    Raises
    ------
    UserError
        Naming the file, if it is damaged, not of the kind that `dtype` says, or not of this model.
    """
    is_gguf = file.lower().endswith(".gguf")
    if is_gguf and not dtype.is_gguf():
        fix = f"set weight_dtype of {part} to GGUF"
        raise unusable(part, file, f"it is a GGUF file, and the data type is {dtype}", fix)
    if dtype.is_gguf() and not is_gguf:
        fix = f"name a .gguf file as model_name of {part}, or set another weight_dtype"
        raise unusable(part, file, f"the data type is {dtype}, and it is no GGUF file", fix)
    path = Path(file).expanduser()
    if not (path.exists() or path.is_absolute() or file.startswith((".", "~"))):
        return None
    if path.suffix.lower() not in _SUFFIXES:
        kinds = " or ".join(_SUFFIXES)
        raise unusable(part, path, f"it is no {kinds} file", f"take a {kinds} file; pickled weights can run code")
    try:
        stored = _SUFFIXES[path.suffix.lower()](path)
    except WeightFileError as error:
        raise unusable(part, error.path, error.reason, error.fix) from error
    if scales := [name for name in stored if name.endswith(_SCALES)]:
        raise unusable(
            part,
            path,
            f"its weights are quantised for ComfyUI, with scales beside them ({scales[0]})",
            "take the file in bf16 or fp16 and let OneTrainer quantise it (weight_dtype), or a GGUF file",
        )
    tensors = _by_diffusers_names(stored)
    _compare(part, path, tensors, config)
    return Part(path.parent, config, tensors)


def load_transformer_file(part: str, file: str, base_model: str, dtype: Any) -> Any:
    """The transformer of a file, with the configuration of the base model's; GGUF weights stay as they are stored."""
    try:
        transformer = WanTransformer3DModel.from_single_file(
            file,
            config=base_model,
            subfolder=part,
            # Not in fp32 while loading: a 14B model would take 56 GB.
            torch_dtype=dtype.torch_dtype() or torch.bfloat16,
            quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16) if dtype.is_gguf() else None,
        )
    except NotImplementedError as error:  # torch: "Cannot copy out of meta tensor"
        raise unusable(part, file, "weights of the transformer are missing in it") from error
    except Exception as error:  # the boundary to the library: it raises whatever it comes upon
        raise unusable(part, file, f"loading failed: {error!r}") from error
    _dequantize_all_but_layers(transformer)
    return transformer


def gguf_is_finite(weight: GGUFParameter) -> bool:
    """Whether all numbers of a weight are finite, from its scales: unpacking those of a 14B model takes minutes."""
    kind = weight.quant_type.name
    stored = weight.as_tensor()
    if kind == "BF16":
        return bool(stored.view(torch.bfloat16).isfinite().all())
    if kind not in _GGUF_SCALES:
        return bool(dequantize_gguf_tensor(weight).isfinite().all())
    blocks = stored.reshape(-1, GGML_QUANT_SIZES[weight.quant_type][1])
    scales = (blocks[:, start : start + 2].contiguous().view(torch.float16) for start in _GGUF_SCALES[kind])
    return all(bool(numbers.isfinite().all()) for numbers in scales)


def unusable(part: str, path: Path | str, reason: str, fix: str = "") -> UserError:
    """The error for a model part that cannot be loaded from this file."""
    return UserError(
        f"the model's {part} cannot be used",
        path=path,
        reason=reason,
        fix=fix or "download this file again, or take another copy of the model",
        module="model",
        context={"part": part},
    )


def _by_diffusers_names(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Rename as diffusers does when it loads the file, on tensors without data."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    if not any(_OWN_NAMES in name for name in stored):
        return stored
    empty = {name: torch.empty(tensor.shape, device="meta") for name, tensor in stored.items()}
    origins = {id(tensor): stored[name] for name, tensor in empty.items()}
    converted = convert_wan_transformer_to_diffusers(empty.copy())
    # What diffusers takes apart belongs to WAN Animate, whose other weights have no place here either.
    return {name: origins[id(tensor)] for name, tensor in converted.items() if id(tensor) in origins}


def _compare(part: str, path: Path, tensors: dict[str, StoredTensor], config: dict[str, Any]) -> None:
    with torch.device("meta"):
        expected = WanTransformer3DModel.from_config(config).state_dict()
    of_another = "take the file of this model type, or set model_type and base_model_name to the file's"
    if missing := [name for name in expected if name not in tensors]:
        reason = f"{len(missing)} of {len(expected)} weights are missing, {missing[0]} among them"
        raise unusable(part, path, reason, "" if len(missing) < len(expected) else of_another)
    for name, tensor in expected.items():
        if tensors[name].shape != tuple(tensor.shape):
            reason = f"{name} has shape {list(tensors[name].shape)}, and the base model makes it {list(tensor.shape)}"
            raise unusable(part, path, reason, of_another)
    if unused := sorted(tensors.keys() - expected.keys()):
        reason = f"the base model has no place for {len(unused)} of its weights, {unused[0]} among them"
        raise unusable(part, path, reason, of_another)


def _dequantize_all_but_layers(transformer: Any) -> None:
    """GGUF files may hold any tensor in bf16 or quantised; only linear layers compute with what is stored."""
    for module in transformer.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, GGUFParameter) and not (isinstance(module, GGUFLinear) and name == "weight"):
                value = dequantize_gguf_tensor(parameter).to(transformer.hf_quantizer.compute_dtype)
                setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
