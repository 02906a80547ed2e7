"""The beginning of a pipeline in a benchmark: the same item for whatever index is asked for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule


class OneItem(PipelineModule, RandomAccessPipelineModule):
    """Gives `item`, which may change between two questions, under `names` (default: those that it has now)."""

    def __init__(self, item: dict[str, Any], names: Collection[str] | None = None) -> None:
        super().__init__()
        self.item = item
        self.names = list(item if names is None else names)

    def length(self) -> int:
        return 1 << 20

    def get_inputs(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return self.names

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {name: self.item[name] for name in self.names}
