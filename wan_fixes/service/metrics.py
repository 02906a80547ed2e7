"""`/metrics`: the models as they are at this moment, and what was done to them, for Prometheus.

Labels are model_id (``ID@VERSION``), variant and source, and no others, so that there are few series.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wan_fixes.errors import WanFixesError
from wan_fixes.health import RunReader, plain
from wan_fixes.models.installed import ModelState, ModelStatus
from wan_fixes.models.names import parse_name
from wan_fixes.models.recording import KIND, Kind, record_path
from wan_fixes.service.models_health import ModelsLook

_MODEL: Final = ("model_id", "variant")
_LABELS: Final = (*_MODEL, "source")

# As `wan_fixes.health.Metrics` writes them: ``name{label=value,label=value}``.
_KEY: Final = re.compile(r"(?P<name>[\w.]+)(?:\{(?P<labels>[^{}]*)\})?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Gauge:
    name: str
    text: str
    value: Callable[[ModelStatus], float | None]


_GAUGES: Final = (
    _Gauge("complete", "Whether the model is complete.", lambda status: float(status.state is ModelState.COMPLETE)),
    _Gauge("files_missing", "Files that are not there or not whole.", lambda status: len(status.missing)),
    _Gauge("files_corrupt", "Files of another content than they should have.", lambda status: len(status.corrupt)),
    _Gauge("files_unverified", "Files that changed since.", lambda status: len(status.unverified)),
    _Gauge("present_bytes", "Bytes of the model on the disk.", lambda status: status.bytes_there),
    _Gauge("needed_bytes", "Bytes to be fetched, where that is known.", lambda status: status.bytes_needed),
    _Gauge("verified_timestamp_seconds", "When all digests were right.", lambda status: status.verified_at),
)

_COUNTERS: Final = {
    **{f"{kind}.calls": (f"{kind}_runs", f"How often {kind} had something to do.") for kind in get_args(Kind)},
    **{f"{kind}.seconds": (f"{kind}_seconds", f"How long {kind} took.") for kind in get_args(Kind)},
    **{f"{kind}_failures": (f"{kind}_failures", f"How often {kind} failed.") for kind in get_args(Kind)},
    "fetched_bytes": ("fetched_bytes", "Bytes that came from a source."),
    "corrupt_files": ("corrupt_files_found", "Files that verifying found spoilt."),
    "reclaimed_bytes": ("reclaimed_bytes", "Bytes that gc gave back."),
}


class ModelsCollector(Collector):
    """Looks at each scrape. Raises OSError where the disk refuses, and ModelError for a forged record."""

    def __init__(self, look: ModelsLook) -> None:
        self._look = look
        self._totals = Totals()

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering it reads no disk."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All series."""
        statuses = [(_labels_of(status), status) for status in self._look.looks()]
        for gauge in _GAUGES:
            family = GaugeMetricFamily(f"wan_models_{gauge.name}", gauge.text, labels=_MODEL)
            for labels, status in statuses:
                value = gauge.value(status)
                if value is not None:
                    family.add_metric(labels, value)
            yield family
        yield from self._counted()

    @cached_property
    def _record(self) -> Path:
        return record_path(self._look.ensurer.resolver)

    def _counted(self) -> Iterator[Metric]:
        try:
            totals = self._totals.updated(_recorded(self._record))
        except WanFixesError as error:
            logger.warning("%s", plain(error))
            totals = self._totals.updated({})
        families: dict[str, CounterMetricFamily] = {}
        for key, value in sorted(totals.items()):
            name, labels = split_key(key)
            if name in _COUNTERS:
                short, text = _COUNTERS[name]
                used = _LABELS if name == "fetched_bytes" else _MODEL
                family = families.setdefault(short, CounterMetricFamily(f"wan_models_{short}", text, labels=used))
                family.add_metric([labels.get(label, "") for label in used], value)
        yield from families.values()


class Totals:
    """Sums of the counters of all recorded runs, which only grow.

    The run database keeps the latest runs alone: a sum over those would fall when one is dropped, which Prometheus
    takes for a restart.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[float, str], float] = {}
        self._totals: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def updated(self, runs: dict[float, dict[str, float]]) -> dict[str, float]:
        """The sums, with what the counters of runs, by the time when they began, say now."""
        with self._lock:
            for started, counters in runs.items():
                for key, value in counters.items():
                    more = value - self._seen.get((started, key), 0.0)
                    if math.isfinite(value) and more > 0:
                        self._seen[started, key] = value
                        self._totals[key] += more
            return dict(self._totals)


def split_key(key: str) -> tuple[str, dict[str, str]]:
    """A counter's name and labels, from its key in the run database; the name is "" where it is no such key."""
    match = _KEY.fullmatch(key)
    if match is None:
        return "", {}
    pairs = (pair.partition("=") for pair in (match["labels"] or "").split(","))
    return match["name"], {label: value for label, _, value in pairs if label in _LABELS}


def _recorded(path: Path) -> dict[float, dict[str, float]]:
    """The counters of each run that is kept. Raises WanFixesError where they cannot be read."""
    if not path.is_file():
        return {}
    reader = RunReader(path)
    return {run.started: reader.counters_of(run.id) for run in reader.runs() if run.kind == KIND}


def _labels_of(status: ModelStatus) -> tuple[str, str]:
    name = parse_name(status.name)
    return f"{name.model_id}@{name.version}", name.variant or ""
