"""What the view of a run costs while it is looked at: CPU time a second, of the window's thread and of the watch's.

    python benchmarks/ui_updates.py [--seconds N] [--samples N] [--errors N]

A run with many samples and errors is recorded by another process, which goes on writing steps, errors and
measurements. A window of `wan ui` shows it, page by page, and what its thread does beyond what it does while nothing
is updated is counted, drawing included. It needs a display (on a machine without: `xvfb-run`). With
WAN_FIXES_ONETRAINER set and PySide6 there, the same is measured for Qt, with OneTrainer's own widgets.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from wan_fixes.health import RunDatabase
from wan_fixes.ui.view import View
from wan_fixes.ui.watch import RunWatch

PAGES = ("Overview", "Left out", "Models", "Checks", "Settings")
SETTLE_SECONDS = 4.0  # a page is made, drawn, and asked about for the first time
STEPS_PER_SECOND = 4
ERRORS_PER_SECOND = 20


def write_run(folder: Path, samples: int, errors: int, is_ready: Event, should_stop: Event) -> None:
    """Record a run, in a process of its own, until told to stop."""
    with RunDatabase(folder / "runs.sqlite") as database, database.start_run("train", {"cache_dir": "cache"}) as run:

        def leave_out(number: int) -> None:
            run.sample(
                f"/videos/cats/broken{number:06}.mp4",
                "skipped",
                module=("RobustVideoLoader", "ValidatedCollectPaths")[number % 2],
                reason=f"the picture at {number % 7} s is damaged",
                fix="make the file anew",
                kind="SampleError",
            )

        for number in range(samples):
            run.sample(f"/videos/cats/clip{number:06}.mp4", "valid")
        for number in range(errors):
            leave_out(number)
        for number in range(5000):
            run.step(number, 0.1, 1e-4, 0.25)
        run.state("phase", "training")
        run.state("caches", {"cache": {"entries": samples, "bytes": 10**11}})
        database.flush()
        is_ready.set()
        tick = 0
        while not should_stop.wait(1 / STEPS_PER_SECOND):
            tick += 1
            run.step(5000 + tick, 0.1, 1e-4, 0.25)
            for number in range(ERRORS_PER_SECOND // STEPS_PER_SECOND):
                leave_out(errors + tick * 10 + number)
            if tick % STEPS_PER_SECOND == 0:
                run.counters(
                    {"RobustTemporalVAE.seconds": tick / 4.0, "RobustTemporalVAE.calls": tick, "cache_hits": tick}
                )
                run.gauges({"memory_mb": 9000.0 + tick, "gpu_memory_mb": 20000.0, "entries_read": float(tick)})


Found = dict[tuple[int, bool], tuple[float, float]]
"""CPU seconds a second of the window's thread and of the watch's, by page and whether it rested."""


class MeasuredWatch(RunWatch):
    """Adds up the CPU time of its thread."""

    seconds = 0.0

    def _look(self, asking: Any) -> None:
        before = time.thread_time()
        super()._look(asking)
        MeasuredWatch.seconds += time.thread_time() - before


class NoActions:
    """Nothing is started here."""

    current = None

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self


class MeasuredView(View):
    """Can be kept from looking, as if nobody saw it."""

    is_resting = False

    def _draw(self) -> None:
        if MeasuredView.is_resting:
            self._rest()
        else:
            super()._draw()


class Measured:
    """Changes pages by the clock of a window, and counts what its thread does in each, resting and not."""

    def __init__(self, seconds: float, view: View, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._seconds, self._view, self._later = seconds, view, later
        self._todo = [(page, resting) for page in range(len(PAGES)) for resting in (False, True)]
        self.found: Found = {}

    def begin(self, done: Callable[[], None]) -> None:
        """Measure one page after the other, and call `done`."""
        if not self._todo:
            done()
            return
        page, MeasuredView.is_resting = self._todo.pop(0)
        self._view.show_page(page)
        self._later(SETTLE_SECONDS, lambda: self._measure((page, MeasuredView.is_resting), done))

    def _measure(self, what: tuple[int, bool], done: Callable[[], None]) -> None:
        window, watch, began = time.thread_time(), MeasuredWatch.seconds, time.monotonic()

        def end() -> None:
            passed = time.monotonic() - began
            self.found[what] = (time.thread_time() - window) / passed, (MeasuredWatch.seconds - watch) / passed
            self.begin(done)

        self._later(self._seconds, end)


def measure_customtkinter(database: Path, seconds: float) -> Found:
    """What the pages cost in customtkinter."""
    import customtkinter as ctk

    from wan_fixes.ui.ctk.components import Components
    from wan_fixes.ui.kit import kit_for

    ctk.set_appearance_mode("dark")
    window = ctk.CTk()
    window.geometry("1100x740+0+0")
    window.grid_rowconfigure(0, weight=1)
    window.grid_columnconfigure(0, weight=1)
    frame = ctk.CTkFrame(window)
    frame.grid(sticky="nsew")
    view = make_view(kit_for(Components(window), frame), frame, database)
    measured = Measured(seconds, view, lambda later, function: window.after(int(later * 1000), function))
    window.after(0, lambda: measured.begin(window.destroy))
    window.mainloop()
    return measured.found


def measure_qt(database: Path, seconds: float, onetrainer: Path) -> Found:
    """The same in Qt, with OneTrainer's widgets."""
    sys.path.insert(0, str(onetrainer))
    os.chdir(onetrainer)
    import matplotlib.pyplot  # noqa: F401 - before PySide6, as OneTrainer does it
    import pydantic._internal._validators  # noqa: F401
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QTabWidget, QWidget

    from wan_fixes.hosts.onetrainer.widgets import Widgets
    from wan_fixes.ui.kit import kit_for

    components = importlib.import_module("modules.util.ui.pyside6_components")
    state = importlib.import_module("modules.util.ui.PySide6UIState").PySide6UIState
    application = importlib.import_module("modules.util.ui.pyside6_util").create_application()
    host = type("Host", (), {"ui_state": state({})})()
    window, page_widget = QTabWidget(), QWidget()
    window.addTab(page_widget, "WAN fixes")
    window.resize(1100, 740)
    window.show()
    view = make_view(kit_for(Widgets(components, host), page_widget), page_widget, database)
    measured = Measured(seconds, view, lambda later, function: QTimer.singleShot(int(later * 1000), function))
    QTimer.singleShot(0, lambda: measured.begin(application.quit))
    application.exec()
    return measured.found


def make_view(kit: Any, frame: Any, database: Path) -> View:
    """The pages, with a watch that is measured."""
    actions: Any = NoActions()
    return MeasuredView(
        kit, frame, make_watch=lambda: MeasuredWatch(lambda: database), actions=actions, report_path=lambda: None
    )


@contextlib.contextmanager
def written_run(samples: int, errors: int) -> Iterator[Path]:
    """The database of a run that goes on in another process."""
    context = multiprocessing.get_context("spawn")
    is_ready, should_stop = context.Event(), context.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = context.Process(target=write_run, args=(folder, samples, errors, is_ready, should_stop))
        writer.start()
        try:
            if not is_ready.wait(300):
                raise SystemExit("the run was not written")
            yield folder / "runs.sqlite"
        finally:
            should_stop.set()
            writer.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each page")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--errors", type=int, default=10_000)
    options = parser.parse_args()
    onetrainer = os.environ.get("WAN_FIXES_ONETRAINER")
    with written_run(options.samples, options.errors) as database:
        print(
            f"{options.samples:,} samples, {options.errors:,} errors and more each second; milliseconds of CPU a second"
        )
        if importlib.util.find_spec("customtkinter") is not None:
            report("customtkinter", measure_customtkinter(database, options.seconds))
        if onetrainer and importlib.util.find_spec("PySide6") is not None:
            report("Qt", measure_qt(database, options.seconds, Path(onetrainer)))


def report(toolkit: str, found: Found) -> None:
    """Print a table."""
    print(f"\n{toolkit:<14} {'window':>8} {'watch':>8} {'both':>8}    (the window's own, at rest)")
    for number, name in enumerate(PAGES):
        own = found[number, True][0] * 1000
        window, watch = found[number, False][0] * 1000 - own, found[number, False][1] * 1000
        print(f"{name:<14} {window:8.2f} {watch:8.2f} {window + watch:8.2f}    {own:8.2f}")


if __name__ == "__main__":
    main()
