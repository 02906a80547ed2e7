"""What WAN computes in fp32 whatever the weights' dtype: as diffusers loads it, and OneTrainer does not.

OneTrainer's loader compares `_keep_in_fp32_modules` with the last name before a weight's own, so that the time
embedder and the tables of shifts and scales are missed, and it takes the training dtype for fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import safetensors
import torch

from wan_fixes.hosts.standalone.model_files import Part

TIME_EMBEDDER = "time_embedder"


def restore_full_precision(transformer: Any, part: Part | None) -> None:
    """Have the weights that diffusers keeps in fp32 in fp32: read again from the safetensors of `part`, where given.

    Quantised weights are left as they are. The time embedder also leaves autocast, which would compute it in bf16.
    """
    kept = set(transformer._keep_in_fp32_modules)
    for key, parameter in transformer.named_parameters():
        if parameter.dtype not in (torch.float16, torch.bfloat16) or kept.isdisjoint(key.split(".")):
            continue
        stored = part.tensors.get(key) if part else None
        value = parameter.data
        if stored is not None:
            with safetensors.safe_open(stored.file, framework="pt") as file:
                value = file.get_tensor(stored.name)
        parameter.data = value.to(torch.float32)
    embedder = transformer.condition_embedder.time_embedder
    embedder.forward = _without_autocast(embedder.forward)


def _without_autocast(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(forward)
    def call(sample: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        with torch.autocast(sample.device.type, enabled=False):
            return forward(sample, *arguments, **options)

    return call
