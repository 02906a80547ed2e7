"""Numbers as people read them, in a terminal, a window and a page."""

from __future__ import annotations


def count_text(count: int) -> str:
    """A whole number with its thousands apart."""
    return f"{count:,}"


def many(count: int, one: str, several: str = "") -> str:
    """A count with its noun: "1 sample", "1,200 samples"."""
    return f"{count_text(count)} {one if count == 1 else several or one + 's'}"


def time_text(seconds: float) -> str:
    """Seconds as "8 s", "2 min 5 s", "3 h 20 min" or "2 d 4 h"."""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def short_time_text(seconds: float) -> str:
    """The time that one item takes: "0.4 ms", "35 ms", "1.2 s", or as `time_text`."""
    if seconds < 0.001:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else time_text(seconds)


def rate_text(per_second: float, unit: str) -> str:
    """A speed in the unit in which it is a handy number: "3.2 steps/s", "12 steps/min", "4 steps/h"."""
    for factor, name in ((1, "s"), (60, "min"), (3600, "h")):
        value = per_second * factor
        if value >= 1 or name == "h":
            return f"{value:.1f} {unit}/{name}" if value < 100 else f"{value:,.0f} {unit}/{name}"
    raise AssertionError("unreachable")


def memory_text(mebibytes: float) -> str:
    """Memory (of 1024² bytes each) as "740 MB" or "12.4 GB"."""
    return f"{mebibytes:.0f} MB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GB"
