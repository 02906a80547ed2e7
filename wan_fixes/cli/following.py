"""Looks at a run about once a second until it ends, from another process: for `wan stats --follow`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live

from wan_fixes.cli.console import SHOWN_LIMIT, err, finite, out, shown
from wan_fixes.cli.places import find_run, find_run_database
from wan_fixes.cli.stats_view import run_picture, samples_text, speed_text, steps_text
from wan_fixes.errors import NoRunError, UserError
from wan_fixes.health import RunReader, plain

if TYPE_CHECKING:
    from wan_fixes.ui.view_model import RunView

_LOOK_SECONDS = 1.0
_LOOKS_FORGIVEN = 5  # that fail one after another: a damaged database is made anew by the run itself
_ALWAYS_OTHER = ("age_seconds", "duration_seconds", "silent_seconds")


def follow(place: Path, number: int | None, *, as_json: bool, as_dict: Callable[[RunView], dict[str, Any]]) -> None:
    """Show the run until it ends, or until Ctrl-C: drawn anew in a terminal, else a line for each change."""
    try:
        views = views_until_end(place, number)
        if as_json:
            _print_lines(views, lambda view: _json_parts(as_dict(view)))
        elif out.is_terminal:
            _draw(views)
        else:
            _print_lines(views, lambda view: (line := one_line(view), line))
    except KeyboardInterrupt:
        pass  # how it is meant to end
    except BrokenPipeError:  # `| head` has what it wanted; Python would say so again when it closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def views_until_end(place: Path, number: int | None) -> Iterator[RunView]:
    """The run about once a second, and for the last time when it has ended. Where there is none yet, it is waited for.

    Raises `UserError` where the place is wrong, or the run database cannot be read any more.
    """
    from wan_fixes.ui.view_model import RunViewer

    path, number = _waited_for(place, number)
    viewer = RunViewer(RunReader(path), recount_seconds=_LOOK_SECONDS)
    failures = 0
    while True:
        try:
            view = viewer.view(number, with_samples=False)
            if view is None:
                find_run(RunReader(path), number)  # says that there is none
        except UserError:
            failures += 1
            if failures > _LOOKS_FORGIVEN:
                raise
        else:
            failures = 0
            if view is not None:
                yield view
                if view.state != "running":
                    return
        time.sleep(_LOOK_SECONDS)


def one_line(view: RunView) -> str:
    """The run in a line: how it stands, what it does, samples, steps, speed, alerts."""
    doing = f"{view.state}: {view.phase}" if view.phase and view.state == "running" else view.state
    steps = f"steps: {steps_text(view)}" if view.last_step is not None else ""
    alerts = [f"ALERT: {alert.message}" for alert in view.alerts]
    return plain("; ".join(filter(None, [doing, samples_text(view), steps, speed_text(view), *alerts])), SHOWN_LIMIT)


def _waited_for(place: Path, number: int | None) -> tuple[Path, int]:
    """The run database and the number of the run, once there is one."""
    has_said = False
    while True:
        try:
            path = find_run_database(place)
            run = find_run(RunReader(path), number)
        except NoRunError:
            if not has_said:
                has_said = True
                where = place.absolute()
                err.print(shown(f"waiting for a run in {where}: start the training; Ctrl-C ends this"), soft_wrap=True)
            time.sleep(_LOOK_SECONDS)
        else:
            if run.status != "running":
                err.print(f"run {run.id} is over; start this again once the next one runs")
            return path, run.id


def _draw(views: Iterator[RunView]) -> None:
    with Live(console=out, auto_refresh=False) as live:
        for view in views:
            live.update(run_picture(view), refresh=True)


def _print_lines(views: Iterator[RunView], parts: Callable[[RunView], tuple[Any, str]]) -> None:
    """A line for each view that differs: `parts` gives what it is compared by, and the line."""
    before = None
    for view in views:
        compared, line = parts(view)
        if compared != before:
            before = compared
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def _json_parts(view: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """One object without the samples' own records, which may be thousands."""
    short = finite(
        {name: value for name, value in view.items() if name not in ("skipped_samples", "warnings", "reasons")}
    )
    compared = {name: value for name, value in short.items() if name not in _ALWAYS_OTHER}
    return compared, json.dumps(short, allow_nan=False)
