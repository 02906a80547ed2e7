"""The latest run of the served workspace, for `/alerts` and `/metrics`: counters and states, never a sample's name."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wan_fixes.errors import NoRunError, WanFixesError
from wan_fixes.health import RunReader, RunRecord, plain, total
from wan_fixes.health.alerts import AlertKind
from wan_fixes.health.metrics import by_label
from wan_fixes.health.run_records import SILENT_SECONDS, number_or_zero
from wan_fixes.service.replies import AlertReply, RunAlerts, ServedRun

_MOST_MODULES: Final = 64
_OTHERS: Final = "others"
_LABEL_LENGTH: Final = 80
_MB: Final = 1024 * 1024
_STATUSES: Final = ("valid", "skipped", "failed", "warning")
_KINDS: Final[tuple[str, ...]] = (*get_args(AlertKind), "silent")
_SECONDS: Final = ".seconds"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One run at one moment."""

    run: RunRecord
    silent_seconds: float
    samples: Mapping[str, int]
    steps: int
    counters: Mapping[str, float]
    alerts: tuple[AlertReply, ...]
    gauges: Mapping[str, float]

    @property
    def is_running(self) -> bool:
        return self.run.status == "running"

    @property
    def is_silent(self) -> bool:
        return self.is_running and self.silent_seconds > SILENT_SECONDS


class RunLook:
    """Looks at the latest run.

    Parameters
    ----------
    find:
        Gives the run database; raises NoRunError where there is none.
    """

    def __init__(self, find: Callable[[], Path], clock: Callable[[], float] = time.time) -> None:
        self._find = find
        self._clock = clock

    def alerts(self) -> RunAlerts:
        """The alerts that are on. Raises NoRunError where there is no run, WanFixesError where it cannot be read."""
        seen = self.seen()
        served = ServedRun(seen.run.id, plain(seen.run.kind), seen.run.status, seen.run.started)
        is_bad = bool(seen.alerts) or seen.is_silent
        silent_seconds = round(seen.silent_seconds, 1)
        return RunAlerts("alert" if is_bad else "ok", served, seen.is_silent, silent_seconds, list(seen.alerts))

    def seen(self) -> _Seen:
        """All that is told of it. Raises NoRunError where there is no run, WanFixesError where it cannot be read."""
        reader = RunReader(self._find(), self._clock)
        with reader.one_moment():
            run = reader.latest_run()
            if run is None:
                raise NoRunError("there is no run", path=reader.path, reason="none was recorded")
            is_running = run.status == "running"
            gauges = reader.gauges(run.id, latest=1) if is_running else []
            recorded = reader.states(run.id).get("alerts") if is_running else None
            return _Seen(
                run=run,
                silent_seconds=max(0.0, self._clock() - run.last_seen) if is_running else 0.0,
                samples=reader.sample_counts(run.id),
                steps=reader.step_count(run.id),
                counters=reader.counters_of(run.id),
                alerts=tuple(_alerts(recorded)),
                gauges=gauges[-1].values if gauges else {},
            )


class RunCollector(Collector):
    """Looks at each scrape. Where there is no run, or it cannot be read, none is said to be running."""

    def __init__(self, look: RunLook) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering it reads no disk."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All series."""
        try:
            seen = self._look.seen()
        except WanFixesError as error:
            logger.debug("%s", plain(error))
            yield _gauge("running", "Whether the latest run goes on.", 0)
            return
        yield _gauge("running", "Whether the latest run goes on.", seen.is_running)
        yield _gauge("silent_seconds", "How long its process has given no sign of life.", seen.silent_seconds)
        yield _gauge("started_timestamp_seconds", "When the latest run began.", seen.run.started)
        samples = GaugeMetricFamily(
            "wan_run_samples", "Samples by verdict; a warning is beside one.", labels=["status"]
        )
        for status in _STATUSES:
            samples.add_metric([status], seen.samples[status])
        yield samples
        yield CounterMetricFamily("wan_run_steps", "Optimizer steps of this run.", value=seen.steps)
        for what in ("hits", "misses"):
            count = total(seen.counters, f"cache_{what}")
            yield CounterMetricFamily(f"wan_run_cache_{what}", f"Look-ups in the caches: {what}.", value=count)
        for name, measured in (("memory_bytes", "memory_mb"), ("gpu_memory_bytes", "gpu_memory_mb")):
            value = seen.gauges.get(measured)
            if value is not None:
                yield _gauge(name, "What the run's process takes, while it goes on.", value * _MB)
        yield _alert_family(seen)
        yield from _module_families(seen.counters)


def _alerts(recorded: Any) -> Iterator[AlertReply]:
    for alert in recorded if isinstance(recorded, list) else []:
        if isinstance(alert, dict):
            yield AlertReply(
                kind=plain(alert.get("kind", "")),
                cause=plain(alert.get("cause", "")),
                message=plain(alert.get("message", "")),
                fix=plain(alert.get("fix", "")),
                value=number_or_zero(alert.get("value")),
                threshold=number_or_zero(alert.get("threshold")),
                since=number_or_zero(alert.get("since")),
            )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"wan_run_{name}", text, value=float(value))


def _alert_family(seen: _Seen) -> Metric:
    family = GaugeMetricFamily("wan_run_alert", "Whether an alert of this kind is on.", labels=["kind"])
    kinds = {alert.kind for alert in seen.alerts} | ({"silent"} if seen.is_silent else set())
    for kind in _KINDS:
        family.add_metric([kind], float(kind in kinds))
    return family


def _module_families(counters: Mapping[str, float]) -> Iterator[Metric]:
    seconds = {name[: -len(_SECONDS)]: value for name, value in counters.items() if name.endswith(_SECONDS)}
    failures = by_label(counters, "module_failures", "module")
    for name, text, values in (
        ("module_seconds", "Time spent in modules of the pipeline, all threads together.", seconds),
        ("module_failures", "How often modules of the pipeline failed.", failures),
    ):
        family = CounterMetricFamily(f"wan_run_{name}", text, labels=["module"])
        for module, value in sorted(_bounded(values).items()):
            family.add_metric([module], value)
        yield family


def _bounded(values: Mapping[str, float]) -> dict[str, float]:
    """So few modules that a monitor can keep them: of more, those with less are put together."""
    most_first = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    found: defaultdict[str, float] = defaultdict(float)
    for at, (module, value) in enumerate(most_first):
        found[plain(module, limit=_LABEL_LENGTH) if at < _MOST_MODULES else _OTHERS] += value
    return dict(found)
