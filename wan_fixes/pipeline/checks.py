"""Is a value fit to go on? One answer for every edge of the pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from wan_fixes.store.tensors import is_finite

# Above so many values an edge looks at a sample of them: a 1080p clip has 500 million, and the sinks look at all.
EDGE_CHECK_VALUES = 1 << 18


def problem_at_edge(value: Any) -> str | None:
    """As :func:`problem_with`, but cheap for large tensors: evenly spaced values stand for all of them."""
    if isinstance(value, torch.Tensor) and value.numel() > EDGE_CHECK_VALUES and not value.is_meta:
        step = value.numel() // EDGE_CHECK_VALUES
        if value.is_contiguous() and _tensor_problem(value.view(-1)[::step]) is None:
            return None
    return problem_with(value)


def problem_with(value: Any) -> str | None:
    """What is wrong with an item, in words, or None.

    None; and at any depth empty tensors, NaN and infinity. Within a dict or list None may stand for "not set", and
    within a dict plain numbers may be anything: a concept holds statistics of its files, which no step is made of.
    """
    return "is None" if value is None else _problem_inside(value, numbers_count=True)


def _problem_inside(value: Any, *, numbers_count: bool) -> str | None:
    if isinstance(value, torch.Tensor):
        return _tensor_problem(value)
    if isinstance(value, float) and numbers_count and not math.isfinite(value):
        return f"is {value}"
    if isinstance(value, Mapping):
        parts: Any = value.items()
        numbers_count = False
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    else:
        return None
    for name, part in parts:
        problem = _problem_inside(part, numbers_count=numbers_count)
        if problem is not None:
            return f"has a part {name!r} that {problem}"
    return None


def _tensor_problem(tensor: torch.Tensor) -> str | None:
    if tensor.is_meta:
        return "has no data"
    if tensor.numel() == 0:
        return f"is empty: shape {tuple(tensor.shape)}"
    if is_finite(tensor):
        return None
    if tensor.element_size() == 1:
        tensor = tensor.float()  # eight-bit floats have no arithmetic of their own
    bad = int((~torch.isfinite(tensor)).sum())
    return f"has {bad} of {tensor.numel()} values that are NaN or infinite"


def describe(value: Any) -> str:
    """Type and shape of a value, for messages: ``float32 [16, 5, 8, 8]``."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
