"""A pipeline's modules as plain data, so that another process can show them."""

from __future__ import annotations

from typing import Any

from wan_fixes.pipeline.base import PipelineModule
from wan_fixes.pipeline.guard import EnhancedSafePipelineModule
from wan_fixes.pipeline.upstream import input_names, producers, unwrap


def structure_of(modules: list[Any]) -> list[dict[str, Any]]:
    """Each module in order: its name, whether it is ours, guarded or as it was, and what it reads and gives.

    ``sources`` says, for each item that it reads, the place of the nearest module that gives it; an item that nobody
    gives is not in it.
    """
    return [
        {
            "at": at,
            "name": type(unwrap(module)).__name__,
            "part": _part_of(module),
            "inputs": input_names(module),
            "outputs": [name for name in (module.get_outputs() or []) if isinstance(name, str)],
            "sources": _sources(modules, at),
        }
        for at, module in enumerate(modules)
    ]


def _part_of(module: Any) -> str:
    if type(unwrap(module)).__module__.startswith("wan_fixes.pipeline."):
        return "validated"
    return "guarded" if isinstance(module, EnhancedSafePipelineModule) else "as it was"


def _sources(modules: list[PipelineModule], at: int) -> dict[str, int]:
    found = {name: next(producers(modules, at, name), None) for name in input_names(modules[at])}
    return {name: source for name, source in found.items() if source is not None}
