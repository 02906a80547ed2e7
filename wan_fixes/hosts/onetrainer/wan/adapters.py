"""Gives a new adapter the weights of a LoRA to go on from, or says in what the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wan_fixes.errors import UserError

_NAMED = 3
"""How many layers an error names."""


def load_adapter(lora: Any, state: Mapping[str, torch.Tensor], config: Any, file: Path | None) -> None:
    """Load `state` into OneTrainer's `LoRAModuleWrapper`.

    Parameters
    ----------
    state:
        By the names of OneTrainer's own format, like `transformer.blocks.0.attn1.to_q.lora_down.weight`.
    file:
        Where it was read from, for the error.

    Raises
    ------
    UserError
        If it is of another rank or kind, or not for exactly the layers of the adapter: a layer that is missing has no
        weights, and one too many would not act while training.
    """
    _check_rank(state, config, file)
    _check_layers(lora, state, file)
    try:
        lora.load_state_dict(dict(state))
    except RuntimeError as error:
        raise _unusable(
            file,
            f"it is of another kind: {error.__cause__ or error}",
            "set peft_type and lora_decompose to what it was trained with",
        ) from error


def _check_rank(state: Mapping[str, torch.Tensor], config: Any, file: Path | None) -> None:
    ranks = {len(tensor) for name, tensor in state.items() if name.endswith("lora_down.weight")}
    if ranks - {config.lora_rank}:
        found = ", ".join(str(rank) for rank in sorted(ranks))
        raise _unusable(
            file,
            f"its rank is {found}, and lora_rank is {config.lora_rank}",
            f"set lora_rank to {found}, or begin with a new LoRA",
        )


def _check_layers(lora: Any, state: Mapping[str, torch.Tensor], file: Path | None) -> None:
    wanted = {module.prefix.removesuffix(".") for module in lora.lora_modules.values()}
    found = _layers(lora, state)
    if missing := wanted - found:
        raise _unusable(
            file,
            f"it has no weights for {_some(missing)} of the {len(wanted)} layers to train",
            "name a LoRA of this model type, or set layer_filter to what that one was trained with",
        )
    if left_out := found - wanted:
        raise _unusable(
            file,
            f"layer_filter leaves out {_some(left_out)} of its {len(found)} layers, which would not act while training",
            "set layer_filter to what it was trained with, or begin with a new LoRA",
        )


def _layers(lora: Any, state: Mapping[str, torch.Tensor]) -> set[str]:
    """The layers of the model that `state` has weights for; a name without a layer stands for itself."""
    # Checkpointing puts itself between a block and its name.
    names = (name.replace(".checkpoint.", ".") for name, _ in lora.orig_module.named_modules())
    known = {f"{lora.prefix}.{name}" for name in names}
    found = set()
    for key in state:
        layer = key
        while layer and layer not in known:
            layer = layer.rpartition(".")[0]
        found.add(layer or key)
    return found


def _some(layers: set[str]) -> str:
    named = sorted(layers)[:_NAMED]
    return f"{len(layers)} ({', '.join(named)}{', …' if len(layers) > _NAMED else ''})"


def _unusable(file: Path | None, reason: str, fix: str) -> UserError:
    return UserError("the LoRA to go on from does not fit", path=file, reason=reason, fix=fix, module="lora")
