"""Whether the training that a configuration asks for fits into this machine, as OneTrainer writes configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from wan_fixes.models.compatibility import CompatibilityCheck, check_compatibility
from wan_fixes.models.fallbacks import WantedSettings
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.manifest import load_manifest
from wan_fixes.models.spec import ModelSpec
from wan_fixes.models.vram import spatial_multiple

# OneTrainer's names of data types, as far as an estimate knows them.
_PRECISIONS: Final = {"FLOAT_32": "fp32", "BFLOAT_16": "bf16", "FLOAT_16": "fp16", "FLOAT_8": "fp8"}


def check_of(model_type: str, config: Mapping[str, Any], hardware: Hardware) -> CompatibilityCheck | None:
    """What a training is going to need, against what there is; None where that is not estimated. Raises ModelError."""
    manifest = load_manifest()
    spec = next(iter(manifest.of_type(model_type)), None)
    wanted = None if spec is None else wanted_of(config, spec)
    if spec is None or wanted is None:
        return None
    return check_compatibility(spec, spec.variants[spec.default_variant], wanted, hardware, manifest=manifest)


def wanted_of(config: Mapping[str, Any], spec: ModelSpec) -> WantedSettings | None:
    """What a configuration of OneTrainer's asks of a model; None for a training that is no LoRA, or has other types."""
    size = _largest_size(str(config.get("resolution", "")), spatial_multiple(spec))
    parts = [_part(config, name) for name in ("transformer", "text_encoder", "vae")]
    precisions = [_PRECISIONS.get(str(part.get("weight_dtype", "BFLOAT_16"))) for part in parts]
    if config.get("training_method") != "LORA" or size is None or None in precisions:
        return None
    offload = config.get("layer_offload_fraction") or parts[0].get("offload_fraction") or 0.0
    return WantedSettings.of(
        spec,
        frames=_number(config.get("frames")),
        width=size[0],
        height=size[1],
        precision=precisions[0],
        text_encoder_precision=precisions[1],
        vae_precision=precisions[2],
        vae_tiling=config.get("vae_tiling") is True,
        batch=_number(config.get("batch_size")),
        lora_rank=_number(config.get("lora_rank")),
        gradient_checkpointing=config.get("gradient_checkpointing", "ON") != "OFF",
        offload=min(1.0, max(0.0, offload)) if isinstance(offload, (int, float)) else 0.0,
    )


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _number(value: Any) -> int | None:
    text = str(value).partition(",")[0].strip()
    return int(text) if text.isdecimal() and len(text) < 7 else None


def _largest_size(text: str, step: int) -> tuple[int, int] | None:
    """Of "512", "832x480" or several with commas between them, the one of the largest area, in steps of the model's."""
    sizes = []
    for one in text.split(","):
        match = re.fullmatch(r"(\d{2,5})(?:x(\d{2,5}))?", one.strip())
        if match is None:
            return None
        width = int(match[1])
        sizes.append((width, int(match[2] or width)))
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return max(step, width // step * step), max(step, height // step * step)
