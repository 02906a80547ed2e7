"""What a user can have done from the tab, one at a time, each as a task in a thread of its own. Knows no widget."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wan_fixes.errors import UserError, WanFixesError
from wan_fixes.health import RunReader
from wan_fixes.ui.cache_in_use import refuse_while_in_use
from wan_fixes.ui.task import Task
from wan_fixes.ui.watch import cache_folder

if TYPE_CHECKING:
    from wan_fixes.errors import EntryError
    from wan_fixes.hosts.standalone.check import FileVerdict
    from wan_fixes.hosts.standalone.dataset import Dataset
    from wan_fixes.media import Verdict
    from wan_fixes.settings import Settings

__all__ = ["Actions", "Task"]

logger = logging.getLogger(__name__)

_STATUSES: Final = ("rejected", "warning")  # what needs a hand comes first
_QUARANTINE: Final = "quarantine.sqlite"


class Actions:
    """Starts tasks, one at a time; a second is refused with a task that has failed and says why.

    Every method returns at once and raises nothing.

    Parameters
    ----------
    config:
        The configuration as it is now: OneTrainer's, as plain JSON. Asked in the caller's thread.
    database:
        The run database's path now; None where there is none.
    host_types:
        The names of the model types that the host has; none where there is no host.

    Attributes
    ----------
    current:
        The task that was started last, also after its end.
    """

    def __init__(
        self,
        config: Callable[[], Mapping[str, Any]],
        database: Callable[[], Path | None],
        *,
        host_types: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._config = config
        self._database = database
        self._host_types = host_types
        self._lock = threading.Lock()
        self.current: Task | None = None

    def check_configuration(self) -> Task:
        """Look over the configuration as it is now."""
        return self._start(
            "Check of the configuration", lambda task, config, _: _check_configuration(task, config, self._host_types())
        )

    def check_dataset(self) -> Task:
        """Give a verdict on each file of the concepts, as `wan check` does."""
        return self._start("Check of the dataset", _check_dataset)

    def verify_cache(self) -> Task:
        """Read every entry of the caches. No entry is changed."""
        return self._start("Verification of the cache", _verify_cache)

    def repair_cache(self) -> Task:
        """Verify, and set aside what is damaged; refused while a training runs on that cache."""
        return self._start("Repair of the cache", _repair_cache)

    def export_report(self, path: Path) -> Task:
        """Write the report of the latest run, in the place of an earlier one; of no other file."""
        return self._start(
            "Report of the run", lambda task, _, database: _export_report(task, database, path), reads_config=False
        )

    def try_again(self, paths: Sequence[str]) -> Task:
        """Take files off the quarantine, and look at each at once."""
        files = list(dict.fromkeys(paths))
        return self._start("Another try", lambda task, config, _: _try_again(task, config, files))

    def folder_of(self, path: str) -> Path:
        """The folder that a file lies in; where it is gone, the nearest that is there."""
        return next((folder for folder in Path(path).absolute().parents if _is_folder(folder)), Path.cwd())

    def _start(
        self, title: str, work: Callable[[Task, Mapping[str, Any], Path | None], None], *, reads_config: bool = True
    ) -> Task:
        task = Task(title)
        with self._lock:
            if self.current is not None and self.current.state == "running":
                return task.run(lambda refused: _refuse(refused, self.current))
            self.current = task
        try:
            config, database = dict(self._config()) if reads_config else {}, self._database()
        except Exception as error:  # whatever the host raises: the window shows it
            logger.warning("%s was not started", title, exc_info=True)
            reason = f"{type(error).__name__}: {error}"
            return task.run(lambda _: _fail(f"the configuration cannot be read: {reason}"))
        return task.begin(lambda running: work(running, config, database))


def _refuse(task: Task, running: Task | None) -> None:
    title = "another task" if running is None else running.title
    raise UserError(f"{task.title} was not started", reason=f"{title} is still going on", fix="wait for it, or stop it")


def _fail(reason: str) -> None:
    raise UserError(reason)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _check_configuration(task: Task, config: Mapping[str, Any], host_types: Collection[str]) -> None:
    from wan_fixes.models.hardware import Hardware
    from wan_fixes.models.layout import models_root
    from wan_fixes.preflight import check_config
    from wan_fixes.settings import Settings

    machine = Hardware.of_this_machine(models_root())
    found = check_config(config, base=Path.cwd(), gpu=machine, settings=Settings.load(), host_types=host_types)
    task.check()
    counts: Counter[str] = Counter(finding.severity for finding in found)
    if found:
        task.say(f"{_count(counts['error'], 'error')}, {_count(counts['warning'], 'warning')}")
    else:
        task.say("nothing is wrong with this configuration")
    task.say(*(f"{finding.severity}: {finding}" for finding in found))


def _check_dataset(task: Task, config: Mapping[str, Any], _database: Path | None) -> None:
    from wan_fixes.hosts.standalone.check import check_files
    from wan_fixes.hosts.standalone.dataset import read_dataset
    from wan_fixes.settings import Settings

    dataset = read_dataset(config, Path.cwd())
    verdicts = check_files(dataset, Settings.load(), task.progress)
    counts: Counter[str] = Counter(verdict.status for verdict in verdicts)
    totals = ", ".join(f"{counts[status]} {status}" for status in ("good", "warning", "rejected"))
    frames = "" if dataset.fps is None else f" for samples of {dataset.frames} frames at {dataset.fps:g} fps"
    task.say(f"{_count(len(verdicts), 'file')}{frames}: {totals}")
    for concept in dataset.concepts:
        statuses = [verdict.status for verdict in verdicts if verdict.concept == concept.name]
        if all(status == "rejected" for status in statuses):
            trouble = "no file that can be used" if statuses else "no files"
            task.say(f"concept {concept.name} has {trouble}: {concept.path}")
    several = len(dataset.concepts) > 1
    for status in _STATUSES:
        for verdict in verdicts:
            if verdict.status == status:
                name = f"{verdict.concept}: {verdict.name}" if several else verdict.name
                task.say(f"{status}: {name}: {_why(verdict.reason, verdict.fix)}")


def _verify_cache(task: Task, config: Mapping[str, Any], _database: Path | None) -> None:
    from wan_fixes.store.upkeep import verify_store

    found = [verify_store(root, progress) for root, progress in _stores(task, config)]
    problems = [problem for store in found for problem in store.problems]
    entries = sum(store.entries for store in found)
    task.say(
        f"{_count(entries, 'entry', 'entries')} in {_count(len(found), 'cache')}: {_count(len(problems), 'problem')}"
    )
    if problems:
        task.say("repairing sets damaged entries aside; the next training makes them again")
    task.say(*_of_entries("damaged", problems))


def _repair_cache(task: Task, config: Mapping[str, Any], database: Path | None) -> None:
    from wan_fixes.store.upkeep import repair_store

    folder = _cache_of(config)
    refuse_while_in_use(folder, database)
    for root, progress in _stores(task, config):
        done = repair_store(root, progress)
        repaired = done.repaired
        task.say(
            f"{root}: {_count(len(repaired.discarded), 'entry', 'entries')} set aside, index made anew with "
            f"{_count(done.entries, 'entry', 'entries')}"
        )
        task.say(*_of_entries("set aside", repaired.discarded), *_of_entries("left alone", repaired.left))


def _stores(task: Task, config: Mapping[str, Any]) -> list[tuple[Path, Callable[[int, int], None]]]:
    """Each store of the configuration's cache, with what is told how far the work on it is."""
    from wan_fixes.store.finding import find_stores

    folder = _cache_of(config)
    roots = find_stores(folder)
    if not roots:
        raise UserError(
            "there is no cache",
            path=folder,
            reason="no sample has been cached there",
            fix="name the folder that was trained with as cache directory, or train first",
        )
    before = 0

    def progress_of_one() -> Callable[[int, int], None]:
        mine = [0]

        def progress(done: int, total: int) -> None:
            nonlocal before
            before, mine[0] = before + total - mine[0], total
            task.progress(before - total + done, before)

        return progress

    return [(root, progress_of_one()) for root in roots]


def _cache_of(config: Mapping[str, Any]) -> Path:
    folder = cache_folder(config)
    if folder is None:
        raise UserError("there is no cache", reason="the configuration names no cache directory", fix="name one")
    return folder


def _of_entries(what: str, problems: Sequence[EntryError]) -> list[str]:
    return [f"{what}: {problem.path}: {_why(problem.reason, problem.fix)}" for problem in problems]


def _export_report(task: Task, database: Path | None, path: Path) -> None:
    from wan_fixes.health.html_page import write_page
    from wan_fixes.ui.report_page import report_page

    if database is None:
        raise UserError("there is no run to report on", reason="no workspace is named", fix="name one")
    page = report_page(RunReader(database))
    task.check()
    write_page(page, path)
    task.say(f"written: {path}")


def _try_again(task: Task, config: Mapping[str, Any], paths: Sequence[str]) -> None:
    from wan_fixes.settings import Settings
    from wan_fixes.store import Quarantine

    settings, dataset = Settings.load(), _dataset(config)
    place = _cache_of(config) / _QUARANTINE
    quarantine = Quarantine(place) if place.is_file() else None
    try:
        for number, path in enumerate(paths):
            task.progress(number, len(paths))
            if quarantine is not None:
                quarantine.forget(path)
            task.say(_outcome(path, _verdict(Path(path), dataset, settings)))
        task.progress(len(paths), len(paths))
    finally:
        if quarantine is not None:
            quarantine.close()


def _dataset(config: Mapping[str, Any]) -> Dataset | None:
    """What the configuration wants of files; None where that cannot be read."""
    from wan_fixes.hosts.standalone.dataset import read_dataset

    try:
        return read_dataset(config, Path.cwd())
    except WanFixesError:
        return None


def _verdict(file: Path, dataset: Dataset | None, settings: Settings) -> Verdict | FileVerdict:
    """As the configuration would have it; of a file that it knows nothing of, whether it can be read."""
    from wan_fixes.hosts.standalone.check import inspect_file
    from wan_fixes.media import is_video
    from wan_fixes.pipeline.media_reader import reader_for

    holding = [concept for concept in dataset.concepts if file.is_relative_to(concept.path)] if dataset else []
    if dataset is not None and holding:
        innermost = max(holding, key=lambda concept: len(Path(concept.path).parts))
        return inspect_file(innermost, file, dataset, settings)
    reader = reader_for(settings)
    return reader.inspect_video(file, count=1, fps=None) if is_video(file) else reader.inspect_image(file)


def _outcome(path: str, verdict: Verdict | FileVerdict) -> str:
    name = Path(path).name
    if verdict.status == "rejected":
        return f"{name}: still: {_why(verdict.reason, verdict.fix)}"
    warned = f", with a warning: {_why(verdict.reason, verdict.fix)}" if verdict.status == "warning" else ""
    return f"{name}: now good: used from the next start{warned}"


def _why(reason: str, fix: str) -> str:
    return f"{reason} ({fix})" if fix else reason


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
