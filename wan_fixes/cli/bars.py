"""A progress bar on standard error, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wan_fixes.cli.console import err


@contextmanager
def progress_bar(text: str, total: int | None = None, *, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """Gives a function to call with how much is done, and where it isn't known before, of how much in all.

    The bar goes away at the end.
    """
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn(text), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=None if total is None else max(total, 1))
        yield lambda done, total=None: progress.update(task, completed=done, total=total)
