"""Variations and balancing for what is not cached, without the dropped samples: in place of MGDS's VariationSorting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wan_fixes.errors import SampleError
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.checks import problem_with
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.groups import GroupPlan, SampleGroup, read_groups
from wan_fixes.pipeline.upstream import all_group_names, from_collector, sample_path


class SafeVariationSorting(PipelineModule, RandomAccessPipelineModule):
    """Yields `names` of each sample as often as its concept's balancing asks, in step with the caches before it.

    A sample that fails while it is loaded is dropped for the epochs to come; the error goes on to the batch
    sorting, which knows what to put in its place.
    """

    def __init__(
        self,
        names: list[str],
        balancing_in_name: str | None = None,
        balancing_strategy_in_name: str | None = None,
        variations_group_in_name: str | Sequence[str] | None = None,
        group_enabled_in_name: str | None = None,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__()
        self.names = names
        self.balancing_in_name = balancing_in_name
        self.balancing_strategy_in_name = balancing_strategy_in_name
        self.variations_group_in_names = (
            [variations_group_in_name] if isinstance(variations_group_in_name, str) else variations_group_in_name or []
        )
        self.group_enabled_in_name = group_enabled_in_name
        self.context = context
        self._groups: list[SampleGroup] = []
        self._plan: GroupPlan | None = None

    def init(self, pipeline: Any, base_seed: int, module_index: int, state: Any) -> None:
        super().init(pipeline, base_seed, module_index, state)
        self._module_index = module_index

    def get_inputs(self) -> list[str]:
        names = [self.balancing_in_name, self.balancing_strategy_in_name, self.group_enabled_in_name]
        return [*self.names, *self.variations_group_in_names, *(name for name in names if name)]

    def get_outputs(self) -> list[str]:
        return self.names

    def length(self) -> int:
        if self._plan is None:
            return self._get_previous_length(self.names[0])
        return len(self._current_plan())

    def start(self, variation: int) -> None:
        self.context.open_epoch(variation)
        self._groups = read_groups(
            lambda name, index: self._get_previous_item(0, name, index),
            self._get_previous_length(self.balancing_in_name or self.names[0]),
            variations_name=None,
            balancing_name=self.balancing_in_name,
            strategy_name=self.balancing_strategy_in_name,
            group_names=all_group_names(self.pipeline.modules, self._module_index),
            read_concept=from_collector(self.pipeline.modules, self._module_index, "concept"),
            enabled_name=self.group_enabled_in_name,
        )
        self.context.roster.take_in(index for group in self._groups for index in group.indices)
        self._plan = GroupPlan(self._groups, self.context.roster)

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        source = self._current_plan().locate(variation, index).sample
        names = self.names if requested_name is None else [requested_name]
        try:
            return {name: self._sound(name, self._get_previous_item(variation, name, source)) for name in names}
        except SampleError as error:
            self.context.skip(source, error, sample_path(self.pipeline.modules, self._module_index, source))
            raise

    def _sound(self, name: str, value: Any) -> Any:
        """The value itself, once every number of it was looked at. None stays: not every model has every item."""
        problem = None if value is None else problem_with(value)
        if problem is not None:
            raise SampleError(
                "a sample cannot be used",
                reason=f"'{name}' {problem}",
                fix="check the file; if it plays, the encoder's precision may be too low for it (try float 32)",
                module=type(self).__name__,
            )
        return value

    def _current_plan(self) -> GroupPlan:
        """The plan of the open epoch. It is started once, so it looks for itself whether samples were dropped."""
        assert self._plan is not None, "read before the pipeline was started"
        if self._plan.version != self.context.roster.version:
            self._plan = GroupPlan(self._groups, self.context.roster)
        return self._plan
