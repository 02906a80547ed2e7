"""OutputPipelineModule: the end of a pipeline, where samples leave as dictionaries of tensors."""

from __future__ import annotations

from typing import Any

import torch

from wan_fixes.engine.kinds import SerialPipelineModule
from wan_fixes.engine.module import PipelineModule


class OutputPipelineModule(PipelineModule, SerialPipelineModule):
    """Collects `names` of each sample; a pair is an input name and the name under which it leaves."""

    def __init__(self, names: list[str | tuple[str, str]]) -> None:
        super().__init__()
        pairs = [name if isinstance(name, tuple) else (name, name) for name in names]
        self.input_names = [input_name for input_name, _ in pairs]
        self.output_names = [output_name for _, output_name in pairs]

    def approximate_length(self) -> int:
        return self._get_previous_length(self.input_names[0])

    def get_inputs(self) -> list[str]:
        return self.input_names

    def get_outputs(self) -> list[str]:
        return self.output_names

    def has_next(self) -> bool:
        return bool(self._has_previous_next(self.input_names[0]))

    def get_next_item(self) -> dict[str, Any]:
        """The next sample: numbers as 0-d tensors, tensors on the pipeline's device, None left out.

        Raises StopIteration when one of the inputs has no more items.
        """
        item = {}
        for input_name, output_name in zip(self.input_names, self.output_names, strict=True):
            if self._get_previous_length(input_name) <= self.current_index:
                raise StopIteration
            value = self._get_previous_item(self.current_variation, input_name, self.current_index)
            if isinstance(value, (int, float)):
                value = torch.tensor(value)
            if torch.is_tensor(value):
                value = value.to(self.pipeline.device)
            item[output_name] = value
        # Filtered at the end, not on the way: the last of two inputs with one output name decides, even with None.
        return {name: value for name, value in item.items() if value is not None}
