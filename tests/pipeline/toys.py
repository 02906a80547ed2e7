"""Toy modules for pipelines: sources without files, modules of each kind that do what a function says, contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from wan_fixes.health import ErrorRecoveryManager, Metrics, RunDatabase
from wan_fixes.pipeline import PipelineContext, SampleRoster
from wan_fixes.pipeline.base import (
    LoadingPipeline,
    OutputPipelineModule,
    PipelineModule,
    PipelineState,
    RandomAccessPipelineModule,
    SerialPipelineModule,
    SingleVariationRandomAccessPipelineModule,
)
from wan_fixes.settings import Settings


class Collector(PipelineModule, RandomAccessPipelineModule):
    """Stands for the collection of paths: `image_path` and `concept` of each sample, as given."""

    CACHE_VERSION = 1

    def __init__(self, concepts: list[dict[str, Any]], paths: list[str] | None = None) -> None:
        super().__init__()
        self.concepts = concepts
        self.paths = paths or [f"clip{index}.mp4" for index in range(len(concepts))]
        self.path_out_name = "image_path"
        self.concept_out_name = "concept"

    def length(self) -> int:
        return len(self.concepts)

    def get_inputs(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return ["image_path", "concept"]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {"image_path": self.paths[index], "concept": self.concepts[index]}


class _Toy:
    """What the toys below share: `make` computes an item, `calls` remembers what was asked."""

    def __init__(
        self, make: Callable[..., Any], outputs: tuple[str, ...] = ("x",), in_name: str = "image_path"
    ) -> None:
        super().__init__()
        self._make = make
        self._outputs = list(outputs)
        self.in_name = in_name
        self.calls: list[tuple[Any, ...]] = []

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return self._outputs

    def length(self) -> int:
        return self._get_previous_length(self.in_name)

    def _call(self, *place: Any) -> Any:
        self.calls.append(place)
        return self._make(self, *place)


class RandomAccess(_Toy, PipelineModule, RandomAccessPipelineModule):
    """make(module, variation, index, requested_name)"""

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return self._call(variation, index, requested_name)


class SingleVariation(_Toy, PipelineModule, SingleVariationRandomAccessPipelineModule):
    """make(module, index, requested_name)"""

    def get_item(self, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return self._call(index, requested_name)


class Serial(_Toy, PipelineModule, SerialPipelineModule):
    """make(module); reads by `current_index` and ends at its length"""

    def approximate_length(self) -> int:
        return self.length()

    def has_next(self) -> bool:
        return self.current_index < self.length()

    def get_next_item(self) -> dict[str, Any]:
        return self._call()


class Reader(PipelineModule, RandomAccessPipelineModule):
    """A place at the end of a pipeline from which to look at the modules before."""

    def length(self) -> int:
        return 0

    def get_inputs(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {}

    def read(self, name: str, index: int, variation: int = 0) -> Any:
        return self._get_previous_item(variation, name, index)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def quick_settings(**changes: Any) -> Settings:
    """Settings that never wait."""
    return Settings(**{"retry_base_seconds": 0.0, **changes})


class Contexts:
    """Makes contexts that know nothing of one another, but share their database files: opening those takes longest.

    Content that is in quarantine in one context is so in all of them: a test of that makes its own (`new_files`).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs = RunDatabase(folder / "runs.sqlite")
        self._files = PipelineContext.create(folder / "context")

    def new(self, clock: Clock | None = None, **settings: Any) -> PipelineContext:
        """A context whose clock stands still unless one is given, with a run of its own."""
        return self._fresh(self._files, clock, settings)

    def with_shared_caches(self, **settings: Any) -> PipelineContext:
        """The same, and all contexts made so have their caches open at the same time."""
        return replace(self._fresh(self._files, None, settings), _stores=self._files._stores)

    @contextmanager
    def new_files(self, folder: Path, clock: Clock | None = None, **settings: Any) -> Iterator[PipelineContext]:
        """The same with databases of its own in `folder`, closed afterwards."""
        files = PipelineContext.create(folder)
        try:
            context = self._fresh(files, clock, settings)
            yield context
            context.close()
        finally:
            files.close()

    def _fresh(self, files: PipelineContext, clock: Clock | None, changes: dict[str, Any]) -> PipelineContext:
        settings = quick_settings(**changes)
        return replace(
            files,
            settings=settings,
            recovery=ErrorRecoveryManager(settings, clock=clock or Clock()),
            metrics=Metrics(),
            roster=SampleRoster(),
            run=self._runs.start_run("test"),
            _stores={},
            _warned=set(),
            _left_out={},
        )

    def close(self) -> None:
        self._files.close()
        self._runs.close()


def samples_of(context: PipelineContext, *statuses: Any) -> dict[str, Any]:
    """The run database's records by path: those of samples that were left out, or with these statuses."""
    run = context.run
    assert run is not None
    return {record.path: record for record in run._database.samples(run.id, *(statuses or ("skipped", "failed")))}


def events_of(context: PipelineContext, kind: str) -> list[Any]:
    """The run database's events of a kind."""
    run = context.run
    assert run is not None
    return [event for event in run._database.events(run.id) if event.kind == kind]


def concept_of(**changes: Any) -> dict[str, Any]:
    """A concept with the fields that caches and sortings read."""
    return {
        "path": "folder",
        "seed": 0,
        "include_subdirectories": False,
        "enabled": True,
        "balancing": 1.0,
        "balancing_strategy": "REPEATS",
        "image_variations": 1,
        "text_variations": 1,
        "loss_weight": 1.0,
        "image": {},
        "text": {},
        **changes,
    }


def build(*modules: Any, seed: int = 1, batch_size: int = 1, threads: int = 1, epoch: int = 0, sample: int = 0) -> Any:
    """A LoadingPipeline on the CPU, not started yet."""
    return LoadingPipeline(torch.device("cpu"), list(modules), batch_size, seed, PipelineState(threads), epoch, sample)


def started(*modules: Any, **options: Any) -> Reader:
    """A started pipeline of `modules`, seen from its end."""
    reader = Reader()
    build(*modules, reader, **options).start_next_epoch()
    return reader


def run_epoch(pipeline: Any) -> list[dict[str, Any]]:
    """The samples of the next epoch; `pipeline` ends with an output module."""
    pipeline.start_next_epoch()
    return list(pipeline)


def output(*names: Any) -> OutputPipelineModule:
    return OutputPipelineModule(list(names))
