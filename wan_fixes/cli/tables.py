"""Tables that stay readable at 80 columns, and numbers as people read them."""

from __future__ import annotations

from datetime import datetime

from rich.table import Table


def small_table(*headings: str, right: tuple[int, ...] = ()) -> Table:
    """A table with these headings whose long texts fold instead of being cut; columns `right` hold numbers."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for at, heading in enumerate(headings):
        if at in right:
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(heading, overflow="fold")
    return table


def facts_table() -> Table:
    """Two columns without headings: a name, and what is so."""
    table = Table(show_header=False, show_edge=False, pad_edge=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def duration_text(seconds: float) -> str:
    """Seconds as "0.8 s", "2 min 5 s" or "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment_text(seconds: float) -> str:
    """Seconds since 1970 as "2026-11-26 18:01", in this machine's time zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
