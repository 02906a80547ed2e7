"""One run as plain data, ready to be shown: by `wan stats`, by a tab, by a report. No widgets, no torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wan_fixes.health import EventRecord, ModuleTime, RunReader, RunRecord, SampleRecord, StepRecord, total

_RECENT_STEPS = 50


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """The work of one module, all threads together."""

    module: str
    seconds: float
    items: int

    @property
    def items_per_second(self) -> float:
        """Throughput; 0 when no time was measured."""
        return self.items / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one moment. Texts come from files and users: show them as text, never as markup."""

    run_id: int
    kind: str
    state: str
    """"running", "finished", "interrupted" or "failed"."""
    config: Mapping[str, Any]
    age_seconds: float
    """Since the run began."""
    duration_seconds: float
    """How long it ran, or has been running."""
    silent_seconds: float
    """Since its process last wrote; large while "running" means that it is stuck."""
    valid: int
    skipped: int
    failed: int
    warned: int
    """Samples with at least one warning; they are valid, skipped or failed as well."""
    skipped_samples: tuple[SampleRecord, ...]
    """The skipped and the failed, with module, reason and fix."""
    warnings: tuple[SampleRecord, ...]
    reasons: tuple[tuple[str, int], ...]
    """Why samples were skipped or failed, and how many, the most frequent reason first."""
    cache_hits: int
    cache_misses: int
    counters: Mapping[str, float]
    modules: tuple[ModuleRow, ...]
    """The slowest first."""
    steps: int
    """Steps recorded in this run."""
    last_step: StepRecord | None
    steps_per_second: float
    """Over the latest steps; 0 before the first."""
    last_event: EventRecord | None

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of cache look-ups that found an entry, 0 to 1; None when there was none."""
        looked_up = self.cache_hits + self.cache_misses
        return self.cache_hits / looked_up if looked_up else None

    @property
    def cache_read_seconds(self) -> float | None:
        """Mean time of reading an entry of the caches; None where none was read."""
        reads = next((row for row in self.modules if row.module == "ValidatedDiskCache"), None)
        return reads.seconds / reads.items if reads is not None and reads.items else None

    @property
    def last_loss(self) -> float | None:
        """The loss of the latest step; None before the first."""
        return None if self.last_step is None else self.last_step.loss


def view_run(database: RunReader, run_id: int | None = None, clock: Callable[[], float] = time.time) -> RunView | None:
    """The run with this number, or the latest; None when there is none. Raises `UserError` when it cannot be read."""
    run = database.latest_run() if run_id is None else database.run(run_id)
    return None if run is None else _view(database, run, clock())


def _view(database: RunReader, run: RunRecord, now: float) -> RunView:
    counts = database.sample_counts(run.id)
    bad = [*database.samples(run.id, "skipped"), *database.samples(run.id, "failed")]
    counters = database.counters_of(run.id)
    recent = database.steps(run.id, last=_RECENT_STEPS)
    step_seconds = sum(step.seconds for step in recent)
    return RunView(
        run_id=run.id,
        kind=run.kind,
        state=run.status,
        config=run.config,
        age_seconds=max(0.0, now - run.started),
        duration_seconds=max(0.0, _end(run, now) - run.started),
        silent_seconds=max(0.0, now - run.last_seen),
        valid=counts["valid"],
        skipped=counts["skipped"],
        failed=counts["failed"],
        warned=counts["warning"],
        skipped_samples=tuple(bad),
        warnings=tuple(database.samples(run.id, "warning")),
        reasons=tuple(Counter(sample.reason for sample in bad).most_common()),
        cache_hits=round(total(counters, "cache_hits")),
        cache_misses=round(total(counters, "cache_misses")),
        counters=counters,
        modules=_modules(database.module_times(run.id), counters),
        steps=database.step_count(run.id),
        last_step=recent[-1] if recent else None,
        steps_per_second=len(recent) / step_seconds if step_seconds > 0 else 0.0,
        last_event=database.last_event(run.id),
    )


def _end(run: RunRecord, now: float) -> float:
    """When the run ended, as far as is known; `now` while it runs."""
    if run.finished is not None:
        return run.finished
    return now if run.status == "running" else run.last_seen


def _modules(times: list[ModuleTime], counters: Mapping[str, float]) -> tuple[ModuleRow, ...]:
    """Times of modules, from their own table and from timings among the counters (`Metrics.time`)."""
    rows = {row.module: ModuleRow(row.module, row.seconds, row.items) for row in times}
    for name, seconds in counters.items():
        module = name.removesuffix(".seconds")
        if module != name and module not in rows:
            rows[module] = ModuleRow(module, seconds, round(counters.get(f"{module}.calls", 0)))
    return tuple(sorted(rows.values(), key=lambda row: (-row.seconds, row.module)))
