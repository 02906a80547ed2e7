"""The two modules at the head of every pipeline: the concepts, and settings that hold for all samples."""

from __future__ import annotations

from typing import Any

from wan_fixes.engine.kinds import RandomAccessPipelineModule
from wan_fixes.engine.module import PipelineModule


class ConceptPipelineModule(PipelineModule, RandomAccessPipelineModule):
    """Gives `concept`: one dictionary per concept."""

    def __init__(self, concepts: list[dict[str, Any]]) -> None:
        super().__init__()
        self.concepts = concepts

    def length(self) -> int:
        return len(self.concepts)

    def get_inputs(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return ["concept"]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {"concept": self.concepts[index]}


class SettingsPipelineModule(PipelineModule, RandomAccessPipelineModule):
    """Gives `settings`: the same dictionary at every index, though its length is one."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings

    def length(self) -> int:
        return 1

    def get_inputs(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return ["settings"]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {"settings": self.settings}
