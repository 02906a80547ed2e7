"""Watches the run database in the background, so that a window only ever shows what is known already."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from wan_fixes.errors import UserError
from wan_fixes.health import RunReader, SampleRecord, plain
from wan_fixes.health.run_records import SampleStatus
from wan_fixes.health.run_schema import NO_DATABASE
from wan_fixes.store.quarantine import count_quarantined
from wan_fixes.ui.charts import Charts, make_charts
from wan_fixes.ui.models_view import ModelRow, ModelsView
from wan_fixes.ui.view_model import RunView, RunViewer

MOST_LEFT_OUT: Final = 500
"""Records of a list; whoever looks for more filters it."""

INTERVAL_SECONDS: Final = 1.25
"""Between two rounds. With one a second the first page takes 6 ms of CPU a second in Qt, and 5 are what it may."""

# How old an answer may become that takes milliseconds, although something has changed.
_RECOUNT_SECONDS: Final = 3.0
_CHARTS_SECONDS: Final = 3.0
_POINTS_PER_SECOND: Final = 200  # of charts that are made again, on an average
_MODELS_SECONDS: Final = 3.0
_QUARANTINE_SECONDS: Final = 10.0  # it is looked at sooner where its file has changed
_ENDED_SECONDS: Final = 60.0  # so often a run that has ended is looked at, though its file says that nothing changed
_STOP_SECONDS: Final = 0.2  # SQLite may just be waiting for a lock, which cannot be cut short

_NO_RUN: Final = "there is no run to show"

logger = logging.getLogger(__name__)

Mark = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Glance:
    """What there is to see at one moment. Texts come from files and users: show them as text, never as markup."""

    number: int = 0
    """Rises with each change: what was drawn of this number need not be drawn again."""
    run: RunView | None = None
    """The latest run, without its lists of samples; None where there is none, or where it cannot be read."""
    problem: str = ""
    """Why nothing can be shown: what, why, what helps; "" where all is well."""
    is_empty: bool = False
    """Nothing is wrong: nothing has been run yet."""
    left_out: tuple[SampleRecord, ...] = ()
    """Samples with one of the statuses and the text that were asked for, at most 500, in the order of their coming."""
    left_out_total: int = 0
    """How many there are of those."""
    quarantined: int = 0
    """Files in the quarantine of the run's cache."""
    charts: Charts | None = None
    """None where nobody looks at them."""
    models: tuple[ModelRow, ...] = ()
    """Empty where nobody looks at them."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the window looks at."""

    filter_text: str = ""
    statuses: tuple[str, ...] = ("skipped", "failed")
    charts: bool = False
    models: bool = False


class RunWatch:
    """Asks the run database about once a second, in a thread of its own.

    It shows the latest run, also after it has ended, and whatever process it is of. Nothing that goes wrong is raised:
    it becomes `Glance.problem`, and goes away with its cause.

    Parameters
    ----------
    place:
        The run database's path now: the user may choose another workspace. None where there is none to look for.
    config:
        The configuration as it is now, for the model that it names; without it that of the run counts.
    clock, steady:
        Seconds since 1970, and seconds that no correction of the clock changes.
    """

    def __init__(
        self,
        place: Callable[[], Path | None],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        config: Callable[[], Mapping[str, Any]] | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._interval = interval_seconds
        self._config = config
        self._clock = clock
        self._steady = steady
        self._wanted = _Wanted()
        self._latest = Glance()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._is_asked = False
        self._thread: threading.Thread | None = None
        self._round = _Round(clock, steady)

    def start(self) -> None:
        """Begin to watch, or go on after `stop`."""
        with self._changed:
            if self._thread is not None and self._thread.is_alive() and not self._is_stopping:
                return
            before, self._is_stopping = self._thread, False
            self._round = _Round(self._clock, self._steady)
            self._thread = threading.Thread(
                target=self._work, args=(self._round, before), name="wan-run-watch", daemon=True
            )
            self._thread.start()

    def stop(self, *, wait_seconds: float = _STOP_SECONDS) -> None:
        """End the thread, and wait so long for it at most. What was known stays."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(wait_seconds)

    def latest(self) -> Glance:
        """What is known, at once."""
        return self._latest

    def show(
        self,
        *,
        filter_text: str | None = None,
        statuses: tuple[str, ...] | None = None,
        charts: bool | None = None,
        models: bool | None = None,
    ) -> None:
        """Say what is looked at now, which is asked for at once; None leaves it as it was.

        Parameters
        ----------
        filter_text:
            Only samples whose path, reason, module or kind contains it.
        statuses:
            Only samples with one of these ("skipped", "failed", "warning"); with () there is no list. At first they are
            the skipped and the failed.
        charts, models:
            Whether anybody looks at them. At first nobody does.
        """
        asked: dict[str, Any] = {"filter_text": filter_text, "statuses": statuses, "charts": charts, "models": models}
        with self._changed:
            wanted = replace(self._wanted, **{name: value for name, value in asked.items() if value is not None})
            if wanted != self._wanted:
                self._wanted = wanted
                self._is_asked = True
                self._changed.notify_all()

    def look(self) -> Glance:
        """Ask now, in this thread; only where none was started."""
        self._look(self._round)
        return self._latest

    def _work(self, asking: _Round, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        while asking is self._round and not self._is_stopping:
            self._look(asking)
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping or self._is_asked, timeout=self._interval)
                self._is_asked = False

    def _look(self, asking: _Round) -> None:
        wanted = self._wanted
        try:
            found = asking.ask(self._place(), wanted, self._latest, self._config)
        except Exception as error:  # a window must not stand still because of us: the next round follows
            logger.debug("the run database could not be looked at", exc_info=True)
            asking.forget()
            found = Glance(problem=plain(f"the run cannot be shown: {type(error).__name__}: {error}"))
        found = replace(found, number=self._latest.number)
        if found != self._latest and asking is self._round and not self._is_stopping:
            self._latest = replace(found, number=found.number + 1)


class _Round:
    """One question round after another, of which each asks only for what may have changed."""

    def __init__(self, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        self._clock = clock
        self._steady = steady
        self._path: Path | None = None
        self.forget()
        self._models = ModelsView(clock, steady)
        self._models_at, self._rows = -float("inf"), cast("tuple[ModelRow, ...]", ())

    def forget(self) -> None:
        """Ask for everything anew."""
        self._ended: tuple[Mark, float] = ((), 0.0)
        self._asked: tuple[RunReader, RunViewer] | None = None
        self._list: tuple[Mark, tuple[SampleRecord, ...], int] = ((), (), 0)
        self._charts: tuple[Mark, float, Charts | None] = ((), 0.0, None)
        self._quarantine: tuple[Mark, float, int] = ((), 0.0, 0)

    def ask(
        self, path: Path | None, wanted: _Wanted, known: Glance, config: Callable[[], Mapping[str, Any]] | None
    ) -> Glance:
        """What there is to see now. Raises UserError where the database cannot be read."""
        if path != self._path:
            self._path = path
            self.forget()
        try:
            found = self._of_run(path, wanted, known)
        except UserError as error:
            self.forget()
            found = Glance(problem=plain(error), is_empty=error.what == NO_DATABASE)
        return replace(found, models=self._models_now(found.run, config)) if wanted.models else found

    def _of_run(self, path: Path | None, wanted: _Wanted, known: Glance) -> Glance:
        if path is None:
            problem = f"{_NO_RUN}: no workspace folder is named (name one in the configuration)"
            return Glance(problem=problem, is_empty=True)
        mark: Mark = (*map(_state, (path, path.with_name(path.name + "-wal"))), wanted)
        now = self._steady()
        if self._ended[0] == mark and now - self._ended[1] < _ENDED_SECONDS:
            return replace(known, quarantined=self._quarantined(known.run))
        if self._asked is None:
            database = RunReader(path, self._clock)
            self._asked = database, RunViewer(database, self._clock, recount_seconds=_RECOUNT_SECONDS)
        database, viewer = self._asked
        with database.one_moment():
            run = viewer.view(with_samples=False)
            if run is None:
                problem = f"{_NO_RUN}: nothing has been run in this workspace yet (start a run first)"
                return Glance(problem=problem, is_empty=True)
            left_out, total = self._left_out(database, run, viewer.counted, wanted)
            charts = self._charts_of(database, run) if wanted.charts else None
        self._ended = (mark, now) if run.state != "running" else ((), 0.0)
        return Glance(
            run=run,
            left_out=left_out,
            left_out_total=total,
            quarantined=self._quarantined(run),
            charts=charts,
        )

    def _left_out(
        self, database: RunReader, run: RunView, counted: object, wanted: _Wanted
    ) -> tuple[tuple[SampleRecord, ...], int]:
        """The list and its length, as of when the samples were counted the last time."""
        mark: Mark = (run.run_id, counted, wanted.filter_text, wanted.statuses)
        if self._list[0] != mark:
            statuses = cast("tuple[SampleStatus, ...]", wanted.statuses)
            records: tuple[SampleRecord, ...] = ()
            total, text = 0, wanted.filter_text
            if statuses:
                records = tuple(database.samples(run.run_id, *statuses, containing=text, most=MOST_LEFT_OUT))
                is_all = len(records) < MOST_LEFT_OUT
                total = len(records) if is_all else database.count_samples(run.run_id, *statuses, containing=text)
            self._list = mark, records, total
        return self._list[1:]

    def _charts_of(self, database: RunReader, run: RunView) -> Charts | None:
        now = self._steady()
        mark: Mark = (run.run_id, run.last_step, run.memory, run.entries_per_second)
        is_fresh = self._charts[0][:1] == mark[:1] and now - self._charts[1] < _pause_after(self._charts[2])
        if self._charts[0] != mark and not (is_fresh and run.state == "running"):
            charts = make_charts(run.started, database.steps(run.run_id), database.gauges(run.run_id))
            self._charts = mark, now, charts
        return self._charts[2]

    def _quarantined(self, run: RunView | None) -> int:
        folder = None if run is None else cache_folder(run.config)
        path, now = None if folder is None else folder / "quarantine.sqlite", self._steady()
        if path is None or _state(path) is None:
            return 0
        mark: Mark = (path, *map(_state, (path, path.with_name(path.name + "-wal"))))
        if mark != self._quarantine[0] or now - self._quarantine[1] >= _QUARANTINE_SECONDS:
            self._quarantine = mark, now, count_quarantined(path)
        return self._quarantine[2]

    def _models_now(self, run: RunView | None, config: Callable[[], Mapping[str, Any]] | None) -> tuple[ModelRow, ...]:
        now = self._steady()
        if now - self._models_at >= _MODELS_SECONDS:
            of_run = {} if run is None else run.config
            self._models_at, self._rows = now, self._models.rows(of_run if config is None else config())
        return self._rows


def _pause_after(charts: Charts | None) -> float:
    """How long charts are shown although more has come, in seconds: the longer, the more there is to draw."""
    lines = [] if charts is None else [*charts.loss, *charts.speed, *charts.memory, *charts.left_out]
    return max(_CHARTS_SECONDS, sum(len(one.points) for one in lines) / _POINTS_PER_SECOND)


def cache_folder(config: Mapping[str, Any]) -> Path | None:
    """The folder of caches that a configuration names; None where it names none. Relative to the working folder."""
    named = config.get("cache_dir")
    if not isinstance(named, str) or not named:
        return None
    try:
        return (Path.cwd() / Path(named).expanduser()).absolute()
    except RuntimeError:  # ~ of somebody whom this machine does not know
        return (Path.cwd() / named).absolute()


def _state(path: Path) -> tuple[int, int, int] | None:
    """Differs when the file is written to."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
