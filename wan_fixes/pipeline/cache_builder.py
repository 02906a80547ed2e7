"""Encoding what a cache lacks, in the pipeline's threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from wan_fixes.errors import SampleError
from wan_fixes.pipeline.fan_out import fan_out
from wan_fixes.pipeline.pixels import SHORT_OF_MEMORY


@dataclass(slots=True)
class Job:
    """One entry to make: its key, and the places that share it, any of which will do.

    A place is an input index and the number of the entry among those of the sample.
    """

    key: str
    samples: list[tuple[int, int]]


PATIENCE_SECONDS = 1.0
"""So long is waited for what another process makes, before it is seen whether this one was stopped."""


class CacheBuilder:
    """Runs jobs through `encode(key, index, number, patience)`.

    It returns False when another process is still making the entry after `patience` seconds: those come last. A sample
    for which it raises ``SampleError`` goes to `skip(index, error)`; any other error ends the building.
    `at_once` lowers how many run at the same time. When this process runs short of memory, half as many do from there
    on, which `narrowed(at_once)` is told, and what lacked memory is made again; what lacks it by itself too is skipped.

    Jobs whose `file_of(index)` is the same, and those of one sample, are made in one thread, one after the other.
    `announce(file, places)` tells which places are to come; an empty list once they are done.
    What `facts()` says is shown beside the progress bar, which counts jobs as `unit`.
    """

    def __init__(
        self,
        encode: Callable[[str, int, int, float], bool],
        skip: Callable[[int, SampleError], None],
        executor: Executor,
        at_once: int | None = None,
        *,
        file_of: Callable[[int], str | None],
        announce: Callable[[str, list[tuple[int, int]]], None],
        narrowed: Callable[[int], None],
        unit: str,
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        threads: int = getattr(executor, "_max_workers", 4)
        self._at_once = at_once or threads
        self._encode = encode
        self._skip = skip
        self._executor = executor
        self._file_of = file_of
        self._announce = announce
        self._narrowed = narrowed
        self._unit = unit
        self._facts = facts
        self._stopped = threading.Event()
        self._is_short_of_memory = False
        self._patience = 0.0
        self._finished: set[str] = set()
        self._lacking: set[str] = set()
        self._lock = threading.Lock()
        self._made = 0
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run(self, jobs: list[Job]) -> int:
        """Make the entries; returns how many were made."""
        with tqdm(total=len(jobs), smoothing=0.1, desc="caching", unit=self._unit) as bar:
            while jobs:
                self._run_until_short(jobs, bar)
                jobs = [job for job in jobs if job.key not in self._finished]
                if self._is_short_of_memory:
                    self._at_once = max(1, self._at_once // 2)
                    self._narrowed(self._at_once)
                else:
                    self._patience = PATIENCE_SECONDS
        return self._made

    def _run_until_short(self, jobs: list[Job], bar: tqdm[Any]) -> None:
        """Make the entries, or some of them, where memory runs short."""
        self._stopped.clear()
        self._is_short_of_memory = False
        together: dict[str | int, list[Job]] = {}
        for job in jobs:
            index, _ = job.samples[0]
            together.setdefault(self._file_of(index) or index, []).append(job)
        groups = list(together.values())
        work = fan_out(self._executor, partial(self._make_all, bar=bar), groups, self._at_once, self._stopped)
        with closing(work):
            for _, future in work:
                future.result()
                if self._is_short_of_memory:
                    return

    def _make_all(self, jobs: list[Job], bar: tqdm[Any]) -> None:
        """Make the entries of one file. A file with many samples isn't finished once the caching is stopped."""
        file = self._file_of(jobs[0].samples[0][0]) if len(jobs) > 1 else None
        if file is not None:
            self._announce(file, [job.samples[0] for job in jobs])
        try:
            for job in jobs:
                if self._stopped.is_set():
                    return
                made = self._make(job)
                if made is None:
                    continue
                with self._lock:
                    self._finished.add(job.key)
                    self._made += made
                    bar.update()
                    bar.set_postfix(skipped=bar.n - self._made, **self._facts())
        finally:
            if file is not None:
                self._announce(file, [])

    def _make(self, job: Job) -> bool | None:
        """True when the entry was made from one of the samples that share it; the others need not be tried.

        None when it is to be tried again: with fewer others at the same time, or once another process has made it.
        """
        if self._device is not None:
            torch.cuda.set_device(self._device)  # the current device is a thread's own
        failures = []
        for index, number in job.samples:
            try:
                is_there = self._encode(job.key, index, number, self._patience)
            except SampleError as error:
                if error.context.get(SHORT_OF_MEMORY) and not (self._at_once == 1 and job.key in self._lacking):
                    self._lacking.add(job.key)
                    self._is_short_of_memory = True
                    self._stopped.set()
                    return None
                failures.append((index, error))
                continue
            return True if is_there else None
        for index, failure in failures:
            self._skip(index, failure)
        return False
