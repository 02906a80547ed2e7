"""Looks at a run every few seconds, from a thread of its own, and records what it sees: counters, memory, alerts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

import psutil

from wan_fixes.health.alerts import AlertBook, Change, Measured
from wan_fixes.health.memory import MemoryStats, memory_stats
from wan_fixes.health.metrics import Metrics, merged, total
from wan_fixes.health.recovery import ErrorRecoveryManager
from wan_fixes.health.run import Run
from wan_fixes.health.text import plain
from wan_fixes.settings import Settings

LOOK_SECONDS: Final = 2.0
_SIZES_SECONDS: Final = 30.0  # asking a cache of 100,000 entries for its size takes some milliseconds
_PATIENCE_SECONDS: Final = 10.0
_GRAVITY: Final = ("closed", "half_open", "open")
_MB: Final = 1024 * 1024

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


class Watched(Protocol):
    """One pipeline: what it counts, how its modules fare, and what its caches hold."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def recovery(self) -> ErrorRecoveryManager: ...

    def cache_sizes(self) -> Mapping[str, tuple[int, int]]:
        """Entries and bytes of each cache, by its folder."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a run at one moment."""

    at: float
    """Steady seconds."""
    counters: Mapping[str, float]
    gauges: Mapping[str, float]
    alerts: int
    """How many are on."""


class RunMonitor:
    """Watches one run. Nothing that goes wrong in it reaches the run.

    Parameters
    ----------
    memory, clock:
        Where memory and steady seconds come from.
    """

    def __init__(
        self,
        run: Run,
        settings: Settings,
        *,
        memory: Callable[[], MemoryStats] = memory_stats,
        clock: Callable[[], float] = time.monotonic,
        interval_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._run = run
        self._memory = memory
        self._clock = clock
        self._interval = interval_seconds
        self._alerts = AlertBook(settings)
        self._watched: list[Watched] = []
        self._phase, self._phase_since, self._should_move = "", time.time(), False
        self._steps = 0
        self._moved_at, self._mark = clock(), (0, 0.0)
        self._sizes_at = -_SIZES_SECONDS
        self._written: dict[str, Any] = {}
        self._look_lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wan-run-monitor", daemon=True)
        self.latest: Look | None = None
        """What was seen last; None before the first look."""

    def start(self) -> RunMonitor:
        """Begin to look."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Look for the last time, and stop."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)
        if not self._thread.is_alive():  # else it waits for a drive that does not answer, and so would the last look
            self.look()
        self._watched.clear()

    def watch(self, pipeline: Watched) -> None:
        """Look at this pipeline too from now on."""
        self._watched.append(pipeline)

    def enter(self, phase: str, *, should_move: bool = False) -> None:
        """The run does something else now, in words; with `should_move` samples or steps are expected to come."""
        self._phase, self._phase_since = phase, time.time()
        self._should_move, self._moved_at = should_move, self._clock()

    def stepped(self) -> None:
        """An optimizer step was done."""
        self._steps += 1

    def look(self) -> None:
        """Measure and record now."""
        with self._look_lock:
            try:
                self._look()
            except Exception as error:  # the boundary to the run: drivers, drives and libraries are asked here
                logger.debug("a run could not be looked at: %s", plain(error), exc_info=True)

    def __enter__(self) -> RunMonitor:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        while not self._stop.wait(self._interval):
            self.look()

    def _look(self) -> None:
        watched = list(self._watched)
        counters = merged([pipeline.metrics.snapshot() for pipeline in watched])
        breakers = _worst([pipeline.recovery.breaker_states() for pipeline in watched])
        memory = _if_possible(self._memory, None)
        self._record_counters(counters)
        self._record_state("phase", self._phase)
        self._record_state("phase_since", self._phase_since)
        self._record_state("breakers", breakers)
        _if_possible(lambda: self._record_sizes(watched), None)
        gauges = _gauges(counters, memory, self._steps)
        self._run.gauges(gauges)
        measured = Measured(
            left_out=round(total(counters, "samples_left_out")),
            known=round(total(counters, "samples_known")),
            memory=memory,
            idle_seconds=self._idle_seconds(counters),
            doing=self._phase,
            counters=counters,
            breakers=breakers,
        )
        for change in self._alerts.look(measured):
            self._announce(change)
        self._record_state("alerts", [asdict(alert) for alert in self._alerts.active])
        self.latest = Look(self._clock(), counters, gauges, len(self._alerts.active))

    def _idle_seconds(self, counters: Mapping[str, float]) -> float:
        mark = (self._steps, sum(value for name, value in counters.items() if name.endswith(".calls")))
        if mark != self._mark or not self._should_move:
            self._mark, self._moved_at = mark, self._clock()
        return self._clock() - self._moved_at

    def _announce(self, change: Change) -> None:
        alert = change.alert
        if change.is_over:
            self._run.event("alert_over", f"over: {alert.message}", alert=alert.kind, cause=alert.cause)
        else:
            logger.warning("%s (%s)", plain(alert.message), plain(alert.fix))
            self._run.event("alert", alert.message, alert=alert.kind, cause=alert.cause, fix=alert.fix)

    def _record_counters(self, counters: Mapping[str, float]) -> None:
        """Those that have changed: there are dozens, and most stand still."""
        written = self._written.setdefault("counters", {})
        changed = {name: value for name, value in counters.items() if written.get(name) != value}
        self._run.counters(changed)
        written.update(changed)

    def _record_state(self, name: str, value: Any) -> None:
        if self._written.get(name) != value:
            self._run.state(name, value)
            self._written[name] = value

    def _record_sizes(self, watched: list[Watched]) -> None:
        now = self._clock()
        if now - self._sizes_at < _SIZES_SECONDS and not self._stop.is_set():
            return
        self._sizes_at = now
        sizes = {folder: size for pipeline in watched for folder, size in pipeline.cache_sizes().items()}
        found = {folder: {"entries": entries, "bytes": size} for folder, (entries, size) in sizes.items()}
        if found:
            self._record_state("caches", found)


def _if_possible(measure: Callable[[], Value], otherwise: Value) -> Value:
    """What cannot be measured on this machine, or right now, must not cost the rest."""
    try:
        return measure()
    except Exception as error:
        logger.debug("something could not be measured: %s", plain(error), exc_info=True)
        return otherwise


def _worst(pipelines: list[dict[str, str]]) -> dict[str, str]:
    """The state of each module's breaker; where two pipelines have a module of one name, the graver one."""
    found: dict[str, str] = {}
    for states in pipelines:
        for module, state in states.items():
            found[module] = max(found.get(module, "closed"), state, key=_GRAVITY.index)
    return found


def _gauges(counters: Mapping[str, float], memory: MemoryStats | None, steps: int) -> dict[str, float]:
    values = {
        "steps": steps,
        "entries_made": total(counters, "cache_written"),
        "entries_read": total(counters, "ValidatedDiskCache.calls"),
        "samples_left_out": total(counters, "samples_left_out"),
    }
    if memory is not None:
        values |= {
            "memory_mb": memory.current_usage_mb,
            "peak_memory_mb": memory.peak_usage_mb,
            "available_mb": memory.available_mb,
            "swap_mb": memory.swap_usage_mb,
        }
        if memory.gpu_usage_mb is not None:
            values["gpu_memory_mb"] = memory.gpu_usage_mb
    traffic = _if_possible(_disk_traffic, None) or {}
    return {name: round(value, 1) for name, value in values.items()} | traffic


def _disk_traffic() -> dict[str, float]:
    """What this process has read from drives and written to them since it began; macOS does not say."""
    counted = getattr(psutil.Process(), "io_counters", None)
    if counted is None:
        return {}
    traffic = counted()
    return {"read_mb": round(traffic.read_bytes / _MB, 1), "written_mb": round(traffic.write_bytes / _MB, 1)}
