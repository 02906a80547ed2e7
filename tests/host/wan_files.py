"""Writes a WAN transformer's weights as ComfyUI's users have them: in WAN's own names, and as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def in_own_names(weights: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The names that WAN's own code gives the weights, from the names of its layers and of what is no layer."""
    from wan_fixes.wan.lora_keys import LAYER_NAMES

    renamed = {}
    for name, weight in weights.items():
        if name == "scale_shift_table":
            own = "head.modulation"
        elif name.endswith("scale_shift_table"):
            own = name.replace("scale_shift_table", "modulation")
        else:
            own = name.replace("norm2", "norm3")
            layers = [(theirs.format(i=i), ours.format(i=i)) for theirs, ours in LAYER_NAMES for i in range(3)]
            for theirs, ours in (*layers, ("attn1", "self_attn"), ("attn2", "cross_attn")):
                own = own.replace(theirs, ours)
        renamed[prefix + own] = weight
    return renamed


def write_gguf(path: Path, weights: dict[str, Any], types: dict[str, str]) -> Path:
    """As ComfyUI-GGUF's converter writes: matrices in the type named for "", all else in fp32 unless named."""
    import gguf

    writer = gguf.GGUFWriter(path, arch="wan")
    for name, weight in weights.items():
        kind = types.get(name, types[""] if weight.dim() == 2 else "F32")
        quantization = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(weight.float().numpy(), quantization)
        writer.add_tensor(name, data, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
