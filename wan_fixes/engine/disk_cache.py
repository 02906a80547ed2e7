"""DiskCache: the face of MGDS's cache without its storage, as a base for a cache that has one."""

from __future__ import annotations

from collections.abc import Callable

from wan_fixes.engine.kinds import SingleVariationRandomAccessPipelineModule
from wan_fixes.engine.module import PipelineModule


class DiskCache(PipelineModule, SingleVariationRandomAccessPipelineModule):
    """Arguments, attributes, inputs and outputs of `mgds.pipelineModules.DiskCache`.

    It stores nothing and stays abstract: `length` and `get_item` are ValidatedDiskCache's, which is the storage.

    Parameters
    ----------
    split_names, aggregate_names:
        Names to cache: large ones, read sample by sample, and small ones, read all at once.
    variations_in_name:
        How many variations of a sample to keep.
    balancing_in_name, balancing_strategy_in_name:
        How often a group's samples repeat ("REPEATS") or how many it gives ("SAMPLES").
    variations_group_in_name, group_enabled_in_name:
        What makes two samples one group, and whether it takes part.
    before_cache_fun:
        Called once before the first sample is computed, to bring models to their device.
    """

    def __init__(
        self,
        cache_dir: str,
        split_names: list[str] | None = None,
        aggregate_names: list[str] | None = None,
        variations_in_name: str | None = None,
        balancing_in_name: str | None = None,
        balancing_strategy_in_name: str | None = None,
        variations_group_in_name: str | list[str] | None = None,
        group_enabled_in_name: str | None = None,
        before_cache_fun: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.cache_dir = cache_dir
        self.split_names = [] if split_names is None else split_names
        self.aggregate_names = [] if aggregate_names is None else aggregate_names
        self.variations_in_name = variations_in_name
        self.balancing_in_name = balancing_in_name
        self.balancing_strategy_in_name = balancing_strategy_in_name
        self.variations_group_in_names = (
            [variations_group_in_name] if isinstance(variations_group_in_name, str) else variations_group_in_name
        )
        self.group_enabled_in_name = group_enabled_in_name
        self.before_cache_fun: Callable[[], None] = _nothing if before_cache_fun is None else before_cache_fun

        self.group_variations: dict[str, int] = {}
        self.group_indices: dict[str, list[int]] = {}
        self.group_output_samples: dict[str, int] = {}
        self.variations_initialized = False

    def get_inputs(self) -> list[str]:
        """All names that are read. MGDS's own gives some of them only, by a slip of operator precedence."""
        optional = [
            self.variations_in_name,
            self.balancing_in_name,
            self.balancing_strategy_in_name,
            *(self.variations_group_in_names or []),
            self.group_enabled_in_name,
        ]
        return self.split_names + self.aggregate_names + [name for name in optional if name]

    def get_outputs(self) -> list[str]:
        return self.split_names + self.aggregate_names


def _nothing() -> None:
    """What happens before caching unless somebody says otherwise."""
