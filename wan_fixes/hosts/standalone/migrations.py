"""Old spellings of OneTrainer's fields, brought to today's.

OneTrainer migrates by version number; its shipped presets have none. The old names are gone from the newest version,
so that each can be translated wherever it stands, whatever number the file has.
"""

from __future__ import annotations

from typing import Any

_PARTS = ("transformer", "text_encoder", "vae")

_LAST_WITH_PRIOR = 8  # the version up to which the transformer's fields were those of "prior"

_RENAMED = {
    "save_after": "save_every",
    "save_after_unit": "save_every_unit",
    "lora_layers": "layer_filter",
    "lora_layer_preset": "layer_filter_preset",
    "lora_layers_regex": "layer_filter_regex",
    "enable_async_offloading": "async_offloading",
}


def migrate_train_config(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of a preset with every old field under its present name. A present name that is there too wins."""
    result = {name: value for name, value in data.items() if name not in _RENAMED}
    for old, new in _RENAMED.items():
        if old in data:
            result.setdefault(new, data[old])
    parts = {name: dict(result[name]) for name in _PARTS if isinstance(result.get(name), dict)}
    if any(name in result and name not in parts for name in _PARTS):
        return result  # not a preset's shape: reading it says so
    _spread_checkpointing(result, parts)
    shared_dtype = result.pop("weight_dtype", None)
    if shared_dtype is not None:
        for name in _PARTS:
            part = parts.setdefault(name, {})
            if part.get("weight_dtype", "NONE") == "NONE":
                part["weight_dtype"] = shared_dtype
    result.update(parts)
    return result


def has_old_spelling(data: dict[str, Any], field: str) -> bool:
    """Whether a preset has a field, by its present dotted name, under an old one, which wins in OneTrainer."""
    version = data.get("__version")
    if field.startswith("transformer.") and isinstance(version, int) and version <= _LAST_WITH_PRIOR:
        return True
    return any(old in data for old, new in _RENAMED.items() if new == field)


def _spread_checkpointing(result: dict[str, Any], parts: dict[str, dict[str, Any]]) -> None:
    """Up to version 10 one setting held for all parts: ON, OFF or CPU_OFFLOADED (before that, a bool)."""
    checkpointing = result.pop("gradient_checkpointing", None)
    activations = result.pop("enable_activation_offloading", True)
    fraction = result.pop("layer_offload_fraction", 0.0)
    if checkpointing is None:
        return
    transformer = parts.setdefault("transformer", {})
    transformer.setdefault("gradient_checkpointing", checkpointing not in ("OFF", False))
    if checkpointing == "CPU_OFFLOADED":
        transformer.setdefault("activation_offloading", activations)
        transformer.setdefault("offload_fraction", fraction)


def migrate_concept(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of a concept with every old field under its present name."""
    result = dict(data)
    if "repeats" in result:
        result.setdefault("balancing", result["repeats"])
        del result["repeats"]
    if "validation_concept" in result:
        validation = result.pop("validation_concept")
        result.setdefault("type", "VALIDATION" if validation else "STANDARD")
    return result
