"""One run as plain data, ready to be shown: by `wan stats`, by a tab, by a report. No widgets, no torch."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wan_fixes.health import (
    EventRecord,
    GaugeRecord,
    RunReader,
    RunRecord,
    SampleGroup,
    SampleRecord,
    StepRecord,
)
from wan_fixes.health.metrics import by_label, totals
from wan_fixes.health.run_records import SILENT_SECONDS, number_or_zero

RECENT_SECONDS = 60.0
"""Speeds are taken over so much of a run, or over its last step where that took longer."""
_RECOUNTED_PER_SECOND: Final = 500
"""Records of what was left out that are counted again in a second, on an average: half a millisecond of work."""
_LATEST_STEPS = 64  # at most, that a speed is taken over
_LATEST_GAUGES = 32  # a minute of them, unless they are rarer


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """The work of all modules of one name, all threads together."""

    module: str
    seconds: float
    items: int
    longest_seconds: float = 0.0
    """The longest that one item took."""
    failures: int = 0
    state: str = ""
    """Of its circuit breaker: "closed", "open", "half_open"; "" where it has none."""

    @property
    def items_per_second(self) -> float:
        """Throughput; 0 when no time was measured."""
        return self.items / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert that is on."""

    kind: str
    message: str
    fix: str
    since: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class CacheRow:
    """What one cache folder holds."""

    folder: str
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory in MB (1024² bytes), as last measured; None of what is not known."""

    used: float
    peak: float
    available: float
    swap: float
    gpu: float | None
    disk_read: float | None
    """What the process has read from drives since it began."""
    disk_written: float | None


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one moment. Texts come from files and users: show them as text, never as markup."""

    run_id: int
    kind: str
    state: str
    """"running", "finished", "interrupted" or "failed"."""
    phase: str
    """What it does, in words; of a run that has ended, what it did last."""
    config: Mapping[str, Any]
    started: float
    """Seconds since 1970."""
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
    groups: tuple[SampleGroup, ...]
    """How many were skipped, failed and warned of, by module and kind of error."""
    cache_hits: int
    cache_misses: int
    cache_written: int
    """Entries that this run has made."""
    cache_corruptions: int
    caches: tuple[CacheRow, ...]
    counters: Mapping[str, float]
    modules: tuple[ModuleRow, ...]
    """The slowest first."""
    memory: MemoryRow | None
    alerts: tuple[AlertRow, ...]
    """Those that are on, the oldest first; of a run that has ended, those that were on at its end."""
    steps: int
    """Steps recorded in this run."""
    last_step: StepRecord | None
    steps_per_second: float
    """Over the latest steps; 0 before the first."""
    samples_per_second: float
    """Trained on: those of the latest steps."""
    entries_per_second: float
    """Entries of the caches made or read in the last minute. A sample has one in each cache."""
    last_event: EventRecord | None

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of cache look-ups that found an entry, 0 to 1; None when there was none."""
        looked_up = self.cache_hits + self.cache_misses
        return self.cache_hits / looked_up if looked_up else None

    @property
    def cache_bytes(self) -> int:
        """What all its caches hold together."""
        return sum(cache.bytes for cache in self.caches)

    @property
    def cache_read_seconds(self) -> float | None:
        """Mean time of reading an entry of the caches; None where none was read."""
        reads = next((row for row in self.modules if row.module == "ValidatedDiskCache"), None)
        return reads.seconds / reads.items if reads is not None and reads.items else None

    @property
    def breakers_open(self) -> tuple[str, ...]:
        """Modules that are switched off at the moment, or were at the end."""
        return tuple(row.module for row in self.modules if row.state not in ("", "closed"))


@dataclass(frozen=True, slots=True)
class _Counted:
    """What is counted over the records of samples, which takes milliseconds where there are thousands."""

    mark: tuple[Any, ...]
    at: float = field(compare=False)
    """When that was so."""
    counts: Mapping[str, int]
    groups: tuple[SampleGroup, ...]


class RunViewer:
    """Views of the runs of one database; what has not changed since the last view is not counted again.

    Parameters
    ----------
    recount_seconds:
        While a run goes on, what it left out is counted no sooner again than after so long, although it has changed:
        for whoever looks every second. Where there are thousands of records, it takes several times as long.
    """

    def __init__(
        self, database: RunReader, clock: Callable[[], float] = time.time, *, recount_seconds: float = 0.0
    ) -> None:
        self._database = database
        self._clock = clock
        self._recount_seconds = recount_seconds
        self._counted: tuple[int, _Counted] | None = None

    @property
    def counted(self) -> object:
        """Another object as soon as the samples of the last view were counted anew."""
        return self._counted

    def view(self, run_id: int | None = None, *, with_samples: bool = True) -> RunView | None:
        """The run with this number, or the latest; None when there is none. All of it is of one moment.

        With `with_samples` off, `skipped_samples`, `warnings` and `reasons` are empty. Raises `UserError` when the
        database cannot be read.
        """
        with self._database.one_moment():
            run = self._database.latest_run() if run_id is None else self._database.run(run_id)
            return None if run is None else self._view(run, with_samples)

    def _view(self, run: RunRecord, with_samples: bool) -> RunView:
        database, now = self._database, self._clock()
        bad = database.samples(run.id, "skipped", "failed") if with_samples else []
        warnings = database.samples(run.id, "warning") if with_samples else []
        counted = self._counts(run)
        counters = database.counters_of(run.id)
        sums = totals(counters)
        states = database.states(run.id, "phase", "caches", "breakers", "alerts")
        steps = database.steps(run.id, latest=_LATEST_STEPS)
        gauges = database.gauges(run.id, latest=_LATEST_GAUGES)
        return RunView(
            run_id=run.id,
            kind=run.kind,
            state=run.status,
            phase=str(states.get("phase") or ""),
            config=run.config,
            started=run.started,
            age_seconds=max(0.0, now - run.started),
            duration_seconds=max(0.0, end_of(run, now) - run.started),
            silent_seconds=max(0.0, now - run.last_seen),
            valid=database.valid_samples(run.id),
            skipped=counted.counts["skipped"],
            failed=counted.counts["failed"],
            warned=counted.counts["warning"],
            skipped_samples=tuple(bad),
            warnings=tuple(warnings),
            reasons=tuple(Counter(sample.reason for sample in bad).most_common()),
            groups=counted.groups,
            cache_hits=round(sums["cache_hits"]),
            cache_misses=round(sums["cache_misses"]),
            cache_written=round(sums["cache_written"]),
            cache_corruptions=round(sums["cache_corruptions"]),
            caches=_caches(states.get("caches")),
            counters=counters,
            modules=_modules(counters, states.get("breakers")),
            memory=_memory(gauges[-1].values) if gauges else None,
            alerts=_alerts(run, states.get("alerts"), now),
            steps=database.step_count(run.id),
            last_step=steps[-1] if steps else None,
            steps_per_second=_steps_per_second(steps),
            samples_per_second=_steps_per_second(steps) * _samples_in_a_step(run.config),
            entries_per_second=_entries_per_second(gauges),
            last_event=database.last_event(run.id),
        )

    def _counts(self, run: RunRecord) -> _Counted:
        known, now = (
            self._counted[1] if self._counted is not None and self._counted[0] == run.id else None,
            self._clock(),
        )
        if known is not None and run.status == "running" and 0 <= now - known.at < self._pause_after(known):
            return known
        mark = self._database.samples_mark(run.id)
        if known is not None and known.mark == mark:
            counted = replace(known, at=now)
        else:
            groups = self._database.sample_groups(run.id)
            counted = _Counted(mark, now, self._database.counts_of(run.id, groups), tuple(groups))
        self._counted = run.id, counted
        return counted

    def _pause_after(self, counted: _Counted) -> float:
        """How long what was counted may be shown although more has come; longer where counting takes longer."""
        records = sum(group.count for group in counted.groups)
        return max(self._recount_seconds, records / _RECOUNTED_PER_SECOND) if self._recount_seconds else 0.0


def view_run(database: RunReader, run_id: int | None = None, clock: Callable[[], float] = time.time) -> RunView | None:
    """The run with this number, or the latest; None when there is none. Raises `UserError` when it cannot be read."""
    return RunViewer(database, clock).view(run_id)


def end_of(run: RunRecord, now: float) -> float:
    """When the run ended, as far as is known; `now` while it runs."""
    if run.finished is not None:
        return run.finished
    return now if run.status == "running" else run.last_seen


def _alerts(run: RunRecord, recorded: Any, now: float) -> tuple[AlertRow, ...]:
    """Those that the run recorded, and one that it cannot record itself."""
    alerts = [
        AlertRow(
            str(alert.get("kind")), str(alert.get("message")), str(alert.get("fix")), number_or_zero(alert.get("since"))
        )
        for alert in (recorded if isinstance(recorded, list) else ())
        if isinstance(alert, Mapping)
    ]
    silent = now - run.last_seen
    if run.status == "running" and silent > SILENT_SECONDS:
        minutes = round(silent / 60)
        alerts.append(
            AlertRow(
                "silent",
                f"the run has given no sign of life for {minutes} minute{'' if minutes == 1 else 's'} "
                f"(process {run.pid} on {run.host})",
                "end that process if it does not come back: the next start goes on from what was saved",
                run.last_seen,
            )
        )
    return tuple(alerts)


def _caches(recorded: Any) -> tuple[CacheRow, ...]:
    """What is damaged in the record is passed over."""
    sizes = recorded.items() if isinstance(recorded, Mapping) else ()
    return tuple(
        CacheRow(folder, int(number_or_zero(size.get("entries"))), int(number_or_zero(size.get("bytes"))))
        for folder, size in sizes
        if isinstance(size, Mapping)
    )


def _modules(counters: Mapping[str, float], recorded: Any) -> tuple[ModuleRow, ...]:
    """A row for each module that was timed, failed, or has a breaker."""
    breakers: Mapping[str, Any] = recorded if isinstance(recorded, Mapping) else {}
    timed = {name.removesuffix(".seconds") for name in counters if name.endswith(".seconds")}
    failures = {module: round(count) for module, count in by_label(counters, "module_failures", "module").items()}
    rows = [
        ModuleRow(
            module=module,
            seconds=counters.get(f"{module}.seconds", 0.0),
            items=round(counters.get(f"{module}.calls", 0)),
            longest_seconds=counters.get(f"{module}.max_seconds", 0.0),
            failures=failures.get(module, 0),
            state=str(breakers.get(module, "")),
        )
        for module in timed | failures.keys() | breakers.keys()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.seconds, row.module)))


def _memory(values: Mapping[str, float]) -> MemoryRow:
    return MemoryRow(
        used=values.get("memory_mb", 0.0),
        peak=values.get("peak_memory_mb", 0.0),
        available=values.get("available_mb", 0.0),
        swap=values.get("swap_mb", 0.0),
        gpu=values.get("gpu_memory_mb"),
        disk_read=values.get("read_mb"),
        disk_written=values.get("written_mb"),
    )


def _steps_per_second(steps: list[StepRecord]) -> float:
    """Of so many of the latest steps as took a minute together."""
    count, seconds = 0, 0.0
    for step in reversed(steps):
        if count and seconds + step.seconds > RECENT_SECONDS:
            break
        count, seconds = count + step.count, seconds + step.seconds
    return count / seconds if seconds > 0 else 0.0


def _samples_in_a_step(config: Mapping[str, Any]) -> int:
    """As the configuration has it; 0 where that is not known. Several GPUs make more."""
    sizes = [config.get(name, 1) for name in ("batch_size", "gradient_accumulation_steps")]
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else 0


def _entries_per_second(gauges: list[GaugeRecord]) -> float:
    """What was made or read between the last measurement and the one about a minute before it."""
    if len(gauges) < 2:
        return 0.0
    last = gauges[-1]
    before = [gauge for gauge in gauges[:-1] if gauge.time >= last.time - RECENT_SECONDS] or gauges[-2:-1]
    seconds = last.time - before[0].time
    made = [sum(gauge.values.get(name, 0) for name in ("entries_made", "entries_read")) for gauge in (before[0], last)]
    return max(0.0, made[1] - made[0]) / seconds if seconds > 0 else 0.0
