"""The common part of the plain modules: one sample in, one sample out."""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.upstream import sample_path_name

if TYPE_CHECKING:
    from wan_fixes.pipeline.context import PipelineContext


class SampleModule(PipelineModule, RandomAccessPipelineModule):
    """A module that makes some items of a sample from others of the same sample.

    Subclasses keep the names of their inputs in attributes that end in ``_in_name``, as MGDS's modules do: the key of a
    cached sample is found by following them. Attributes with a leading underscore are no part of that key.

    Parameters
    ----------
    context:
        For modules that draw: their random numbers hang on the variation and the sample's content.
    """

    def __init__(self, context: PipelineContext | None = None) -> None:
        super().__init__()
        self._context = context
        self._path_name: str | None = None

    def init(self, pipeline: Any, base_seed: int, module_index: int, state: Any) -> None:
        super().init(pipeline, base_seed, module_index, state)
        self._path_name = sample_path_name(pipeline.modules, module_index)

    def length(self) -> int:
        return int(self._get_previous_length(self.get_inputs()[0]))

    def get_item(
        self,
        variation: int,
        index: int,
        requested_name: str | None = None,  # noqa: ARG002 (the engine's signature; all outputs are made at once)
    ) -> dict[str, Any]:
        return self.make(SampleReader(self, variation, index))

    @abstractmethod
    def make(self, read: SampleReader) -> dict[str, Any]:
        """All outputs of one sample."""


class SampleReader:
    """What a module may know of one sample in one variation."""

    def __init__(self, module: SampleModule, variation: int, index: int) -> None:
        self._module = module
        self._variation = variation
        self._index = index

    def __call__(self, name: str) -> Any:
        """The item of that name, as the modules before made it."""
        return self._module._get_previous_item(self._variation, name, self._index)

    def rng(self, purpose: str) -> random.Random:
        """Random numbers of this sample in this variation, whatever the seed and its place in the list."""
        module = self._module
        assert module._context is not None, f"{type(module).__name__} was made without a context"
        assert module._path_name is not None, f"{type(module).__name__} has no path collector before it"
        return module._context.rng(self._variation, self(module._path_name), purpose)
