"""Encoding what a cache lacks, in the pipeline's threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from wan_fixes.errors import SampleError
from wan_fixes.pipeline.fan_out import fan_out


@dataclass(slots=True)
class Job:
    """One entry to make: its key, and the (input index, variation) pairs that share it, any of which will do."""

    key: str
    samples: list[tuple[int, int]] = field(default_factory=list)


class CacheBuilder:
    """Runs jobs through `encode(key, index, variation)`.

    A sample whose encoding raises ``SampleError`` goes to `skip(index, error)`; any other error ends the building.
    `at_once` lowers how many run at the same time, when memory has run out before.
    """

    def __init__(
        self,
        encode: Callable[[str, int, int], None],
        skip: Callable[[int, SampleError], None],
        executor: Executor,
        at_once: int | None = None,
    ) -> None:
        self._at_once = at_once
        self._encode = encode
        self._skip = skip
        self._executor = executor
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run(self, jobs: list[Job]) -> int:
        """Make the entries; returns how many were made."""
        made = 0
        with tqdm(total=len(jobs), smoothing=0.1, desc="caching", unit="sample") as bar:
            for _, future in fan_out(self._executor, self._make, jobs, self._at_once):
                made += future.result()
                bar.update()
                bar.set_postfix(skipped=bar.n - made)
        return made

    def _make(self, job: Job) -> bool:
        """True when the entry was made from one of the samples that share it; the others need not be tried."""
        if self._device is not None:
            torch.cuda.set_device(self._device)  # the current device is a thread's own
        failures = []
        for index, variation in job.samples:
            try:
                self._encode(job.key, index, variation)
            except SampleError as error:
                failures.append((index, error))
                continue
            return True
        for index, failure in failures:
            self._skip(index, failure)
        return False
