"""MGDS and TrainDataLoader: a pipeline as a torch dataset, and the loader that makes batches of it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from wan_fixes.engine.loading import LoadingPipeline
from wan_fixes.engine.module import PipelineState
from wan_fixes.engine.sources import ConceptPipelineModule, SettingsPipelineModule


class MGDS(IterableDataset[dict[str, Any]]):
    """Samples of `concepts` as `definition` makes them; call `start_next_epoch` before iterating over each epoch.

    Parameters
    ----------
    definition:
        Modules in order, nested in lists as is convenient, None for what is switched off.
    batch_size:
        Samples per batch on this device.
    seed:
        -1 for another one each time.
    initial_epoch, initial_epoch_sample:
        Where to resume; the sample is rounded down to a whole batch.
    """

    def __init__(
        self,
        device: torch.device,
        concepts: list[dict[str, Any]],
        settings: dict[str, Any],
        definition: list[Any],
        batch_size: int,
        state: PipelineState,
        seed: int = 42,
        initial_epoch: int = 0,
        initial_epoch_sample: int = 0,
    ) -> None:
        self.device = device
        self.batch_size = batch_size
        if seed == -1:
            seed = random.randint(-(1 << 30), 1 << 30)
        self.loading_pipeline = LoadingPipeline(
            device,
            [ConceptPipelineModule(concepts), SettingsPipelineModule(settings), *definition],
            batch_size,
            seed,
            state,
            initial_epoch,
            initial_epoch_sample,
        )

    def __iter__(self) -> LoadingPipeline:
        return self.loading_pipeline

    def approximate_length(self) -> int:
        """Whole batches in an epoch, as far as known in advance."""
        return self.loading_pipeline.approximate_length() // self.batch_size

    def start_next_epoch(self) -> None:
        """Start the modules for the next epoch."""
        self.loading_pipeline.start_next_epoch()


class TrainDataLoader(DataLoader[dict[str, Any]]):
    """Whole batches only: what is left over at the end of an epoch is dropped."""

    def __init__(self, dataset: MGDS, batch_size: int) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=True)
