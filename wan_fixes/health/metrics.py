"""Counters and timings that loader threads share."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping


class Metrics:
    """Counts and durations by name and labels. Safe to use from several threads."""

    def __init__(self) -> None:
        self._values: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Add `n` to the counter `name`."""
        key = _key(name, labels)
        with self._lock:
            self._values[key] += n

    def set(self, name: str, value: float) -> None:
        """Have `name` be `value`, whatever it was."""
        with self._lock:
            self._values[name] = value

    def time(self, name: str, seconds: float, **labels: str) -> None:
        """Note that `name` took `seconds` once more."""
        calls, total, longest = (_key(f"{name}.{what}", labels) for what in ("calls", "seconds", "max_seconds"))
        with self._lock:
            self._values[calls] += 1
            self._values[total] += seconds
            self._values[longest] = max(self._values[longest], seconds)

    def snapshot(self) -> dict[str, float]:
        """All values by key at one moment, ready for `Run.counters`.

        A counter's key is its name, with labels ``name{label=value,…}``; a timing gives ``name.calls``,
        ``name.seconds`` and ``name.max_seconds``.
        """
        with self._lock:
            return dict(self._values)


def merged(snapshots: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Several snapshots as one: the sums, and of the longest times the longest."""
    values: dict[str, float] = {}
    for snapshot in snapshots:
        for name, value in snapshot.items():
            is_longest = name.partition("{")[0].endswith(".max_seconds")
            before = values.get(name, 0.0)
            values[name] = max(before, value) if is_longest else before + value
    return values


def totals(values: Mapping[str, float]) -> dict[str, float]:
    """The sum of each counter over all its labels, by its name."""
    sums: defaultdict[str, float] = defaultdict(float)
    for key, value in values.items():
        sums[key.partition("{")[0]] += value
    return sums


def by_label(values: Mapping[str, float], name: str, label: str) -> dict[str, float]:
    """A counter that has this label alone, by the label's value."""
    start, end = f"{name}{{{label}=", "}"
    return {
        key[len(start) : -len(end)]: value
        for key, value in values.items()
        if key.startswith(start) and key.endswith(end)
    }


def total(values: Mapping[str, float], name: str) -> float:
    """The sum of a counter over all its labels, from a snapshot or from `RunDatabase.counters_of`."""
    return sum(value for key, value in values.items() if key == name or key.startswith(f"{name}{{"))


def _key(name: str, labels: dict[str, str]) -> str:
    if not labels:
        return name
    return f"{name}{{{','.join(f'{label}={labels[label]}' for label in sorted(labels))}}}"
