"""Alerts: what a user should be told of at once while a run goes on, each cause once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from wan_fixes.health.memory import MemoryStats
from wan_fixes.health.metrics import total
from wan_fixes.settings import Settings

AlertKind = Literal["error_rate", "memory", "stall", "cache_corruption", "module_off"]

_FEWEST_LEFT_OUT: Final = 3
"""Fewer samples that are left out are no rate: one of two clips may just be broken."""
_MEMORY_RELIEF: Final = 0.03
"""The share of memory that must have become free before memory counts as no longer short."""
_QUIET_SECONDS: Final = 1800.0
"""An alert that comes again sooner after it was announced is shown, and neither announced again nor its end."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that goes wrong now."""

    kind: AlertKind
    cause: str
    """What it is about: a module, a folder; "" where there is one of the kind only."""
    message: str
    fix: str
    value: float
    """What was measured, in the unit of the threshold."""
    threshold: float
    since: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What alerts are judged by.

    Attributes
    ----------
    left_out, known:
        Samples skipped or failed, and all that were looked at.
    idle_seconds:
        How long nothing was made or trained, while something should; 0 where nothing is waited for.
    doing:
        What the run is doing, in words.
    """

    left_out: int = 0
    known: int = 0
    memory: MemoryStats | None = None
    idle_seconds: float = 0.0
    doing: str = ""
    counters: Mapping[str, float] = field(default_factory=dict)
    breakers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that has begun, or is over."""

    alert: Alert
    is_over: bool


class AlertBook:
    """Remembers which alerts are on, so that no cause is announced twice."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._steady = steady
        self._on: dict[tuple[str, str], Alert] = {}
        self._quiet: set[tuple[str, str]] = set()  # of those that are on, the ones that nobody was told of this time
        self._announced: dict[tuple[str, str], float] = {}

    @property
    def active(self) -> tuple[Alert, ...]:
        """The alerts that are on, the oldest first."""
        return tuple(sorted(self._on.values(), key=lambda alert: alert.since))

    def look(self, measured: Measured) -> list[Change]:
        """What has changed by this measurement, for people to be told."""
        now, steady = self._clock(), self._steady()
        found = {(alert.kind, alert.cause): alert for alert in self._judge(measured, now)}
        changes = []
        for key in [key for key in self._on if key not in found]:
            alert = self._on.pop(key)
            if key in self._quiet:
                self._quiet.discard(key)
            else:
                changes.append(Change(alert, is_over=True))
        for key, alert in found.items():
            known = self._on.get(key)
            if known is not None:
                self._on[key] = replace(alert, since=known.since)
                continue
            self._on[key] = alert
            announced = self._announced.get(key)
            if announced is None or steady - announced >= _QUIET_SECONDS:
                changes.append(Change(alert, is_over=False))
                self._announced[key] = steady
            else:
                self._quiet.add(key)
        return changes

    def _judge(self, measured: Measured, now: float) -> Iterator[Alert]:
        for judge in (_error_rate, self._memory, _stall, _cache_corruption, _modules_off):
            yield from judge(measured, self._settings, now)

    def _memory(self, measured: Measured, settings: Settings, now: float) -> Iterator[Alert]:
        if measured.memory is None or not measured.memory.total_mb:
            return
        limit, used = settings.memory_limit_fraction, measured.memory.used_fraction
        if used > (limit - _MEMORY_RELIEF if ("memory", "") in self._on else limit):
            yield Alert(
                "memory",
                "",
                f"memory is nearly used up: {used:.0%} of {measured.memory.total_mb / 1024:.1f} GiB, "
                f"{measured.memory.available_mb / 1024:.1f} GiB free",
                "close other programs, lower the number of loader threads, or the resolution or frames",
                used,
                limit,
                now,
            )


def _error_rate(measured: Measured, settings: Settings, now: float) -> Iterator[Alert]:
    rate = measured.left_out / measured.known if measured.known else 0.0
    if measured.left_out >= _FEWEST_LEFT_OUT and rate > settings.alert_error_rate:
        yield Alert(
            "error_rate",
            "",
            f"{measured.left_out} of {measured.known} samples are left out ({rate:.0%})",
            "see which and why in the tab, or with `wan errors`",
            rate,
            settings.alert_error_rate,
            now,
        )


def _stall(measured: Measured, settings: Settings, now: float) -> Iterator[Alert]:
    if settings.alert_stall_seconds and measured.idle_seconds > settings.alert_stall_seconds:
        yield Alert(
            "stall",
            measured.doing,
            f"nothing was made for {measured.idle_seconds / 60:.0f} minutes ({measured.doing})",
            "look at the load of GPU and drives; `wan inspect` shows where the run stands",
            measured.idle_seconds,
            settings.alert_stall_seconds,
            now,
        )


def _cache_corruption(measured: Measured, settings: Settings, now: float) -> Iterator[Alert]:
    damaged = total(measured.counters, "cache_corruptions")
    if damaged >= settings.alert_corrupt_entries:
        yield Alert(
            "cache_corruption",
            "",
            f"{damaged:.0f} cache entries were damaged, and are made again",
            "check the drive that the cache is on; `wan cache verify` names what else is damaged",
            damaged,
            settings.alert_corrupt_entries,
            now,
        )


def _modules_off(measured: Measured, settings: Settings, now: float) -> Iterator[Alert]:
    for module, state in measured.breakers.items():
        if state != "closed":
            yield Alert(
                "module_off",
                module,
                f"{module} fails too often and is switched off for a while",
                "`wan errors` says why it fails; without that being mended it will be switched off again",
                1.0,
                settings.breaker_threshold,
                now,
            )
