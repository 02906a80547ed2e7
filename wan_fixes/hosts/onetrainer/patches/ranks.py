"""The processes of a training on several GPUs agree on the batches of each epoch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patching import Patch, wrap


def _apply(module: ModuleType) -> None:
    wrap(module.BaseDataLoader, "get_data_loader", _around)


def _around(stock: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def get_data_loader(loader: Any) -> Any:
        from wan_fixes.hosts.onetrainer.ranks import in_step

        return in_step(stock(loader), loader.get_data_set(), loader.train_device)

    return get_data_loader


PATCHES = (
    Patch(
        name="ranks in step",
        module="modules.dataLoader.BaseDataLoader",
        needs=(
            "BaseDataLoader.get_data_loader",
            "BaseDataLoader.get_data_set",
            "modules.util.multi_gpu_util:reduce_tensor_mean",
        ),
        apply=_apply,
        why="agreement of several GPUs on what a broken file leaves of an epoch",
    ),
)
