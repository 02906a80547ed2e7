"""Several processes of one training, one for each GPU: they take as many steps, over the same samples.

Each builds the pipeline for itself, and stock expects that all come to the same. Where a clip fails for one process
alone (a network drive, a card that is full), one would wait for ever at the end of an epoch for gradients of a step
that the others do not take.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from wan_fixes.errors import CriticalError, SampleError
from wan_fixes.pipeline import PipelineContext
from wan_fixes.pipeline.upstream import is_collector, unwrap
from wan_fixes.store import make_key

_contexts: weakref.WeakKeyDictionary[Any, PipelineContext] = weakref.WeakKeyDictionary()

Sample = tuple[str, int]
"""A sample as every process knows it: its path, and how many of that path come before it."""


def share(dataset: Any, context: PipelineContext) -> None:
    """Have the processes of this training agree on the batches of `dataset`, which `context` belongs to."""
    _contexts[dataset] = context


def in_step(loader: Iterable[Any], dataset: Any, device: Any) -> Iterable[Any]:
    """The batches of `loader`, where they are shared: as many in every process. `device` is where gradients are."""
    context = _contexts.get(dataset)
    return loader if context is None else SharedBatches(loader, dataset, context, torch.device(device))


class SharedBatches:
    """Batches that every process iterates at the same time.

    Before each one the processes tell one another whether they have it: the epoch ends with the shortest, and an error
    in one of them is one in all. After the last one they leave out what any of them cannot use.
    """

    def __init__(self, loader: Iterable[Any], dataset: Any, context: PipelineContext, device: torch.device) -> None:
        self._loader = loader
        self._dataset = dataset
        self._context = context
        self._device = device

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        while True:
            try:
                batch = next(batches, None)
            except Exception:
                self._means(False, True)  # the others wait for an answer
                raise
            present, failed = self._means(batch is not None, False)
            if failed:
                raise CriticalError(
                    "another process of this training has failed",
                    reason="its data pipeline can give no more batches",
                    fix="see that process's error; the training goes on from the latest backup",
                    module="ranks",
                )
            if present < 1.0:
                if batch is not None:
                    self._context.event("epoch_cut", "the epoch ends early: another process has no more batches")
                break
            yield batch
        self._leave_out_alike()

    def _means(self, *flags: bool) -> list[float]:
        """Of each flag, in how many of the processes it is set: 0 to 1."""
        from modules.util import multi_gpu_util

        tensor = torch.tensor([float(flag) for flag in flags], device=self._device)
        multi_gpu_util.reduce_tensor_mean(tensor)
        return list(tensor.tolist())

    def _leave_out_alike(self) -> None:
        """Drop, from the next epoch on, what is not usable in every process."""
        usable = self._usable()
        if len(set(_gathered(make_key({"usable": sorted(usable)})))) == 1:
            return
        everywhere = set.intersection(*(set(samples) for samples in _gathered(list(usable))))
        for sample in usable.keys() - everywhere:
            error = SampleError(
                "a sample is left out",
                path=sample[0],
                reason="another process of this training cannot use it",
                fix="see what that process reported of this file",
                module="ranks",
            )
            self._context.skip(usable[sample], error)

    def _usable(self) -> dict[Sample, int]:
        """The index of every sample that takes part in the coming epochs."""
        gone = {
            index for index, error in self._context.roster.reasons().items() if not error.context.get("this_epoch_only")
        }
        usable: dict[Sample, int] = {}
        seen: Counter[str] = Counter()
        modules = [unwrap(module) for module in self._dataset.loading_pipeline.modules]
        collector = next(module for module in modules if is_collector(module))
        for index in range(collector.length()):
            path = str(collector.get_item(0, index)[collector.path_out_name])
            sample = (path, seen[path])
            seen[path] += 1
            if index not in gone:
                usable[sample] = index
        return usable


def _gathered(value: Any) -> list[Any]:
    """The value of every process."""
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
