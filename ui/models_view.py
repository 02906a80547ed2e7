"""The state of the model files, as plain data: what is there, and what is being fetched, by whichever process."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wan_fixes.errors import WanFixesError
from wan_fixes.health import RunReader, RunRecord, plain
from wan_fixes.health.text import size_text
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.installed import VERIFIED_NAME, ModelState, ModelStatus
from wan_fixes.models.layout import ModelResolver, models_root
from wan_fixes.models.locate import named_model
from wan_fixes.models.manifest import load_manifest, manifest_path
from wan_fixes.models.recording import KIND, record_path
from wan_fixes.models.target import Target

DOWNLOADING: Final = "DOWNLOADING"
_RATE_SECONDS: Final = 30.0
"""Over so much of a download its speed is taken."""
_LOOK_AGAIN_SECONDS: Final = 30.0
"""A file that was changed in its place shows in no folder's time: so often everything is looked at."""
_FETCHING: Final = ("ensure", "repair", "update")

Mark = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model."""

    name: str
    """As `wan models list` says it."""
    state: str
    """A `ModelState` ("COMPLETE", "PARTIAL", "CORRUPT", "VERIFYING", "NOT_PRESENT"), or "DOWNLOADING".

    Or "UNKNOWN" where it cannot be found out: then `note` says why.
    """
    bytes_there: int
    bytes_needed: int
    """Still to be fetched; 0 where nobody knows yet how large it is."""
    progress: float | None
    """0 to 1 while it is fetched, and its size is known."""
    bytes_per_second: float | None
    """While it is fetched, and bytes have come."""
    note: str
    """What else there is to say, and what helps."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was seen of one model, and when (steady seconds)."""

    mark: Mark
    at: float
    status: ModelStatus


class ModelsView:
    """Looks at the models below `MODELS_ROOT`: at names, sizes and times, and what other processes recorded.

    No server is asked, no content of a model is read, and nothing is made or changed. What has not changed is not
    looked at again. Use it from one thread.

    Parameters
    ----------
    clock, steady:
        Seconds since 1970, and seconds that no correction of the clock changes.
    """

    def __init__(self, clock: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steady = steady
        self._made_for: Mark = ()
        self._ensurer: ModelEnsurer | None = None
        self._record = Path()
        self._named: tuple[Mark, tuple[ModelEnsurer, Target] | None] = ((), None)
        self._looked: dict[str, _Looked] = {}
        self._came: dict[int, deque[tuple[float, float]]] = {}  # of a run: when how many bytes had come
        self._failures: dict[int, str] = {}

    def rows(self, config: Mapping[str, Any] | None = None) -> tuple[ModelRow, ...]:
        """The models that are there, partly there or being fetched, and the one that a configuration names.

        Raises nothing: what stands in the way is the note of a row.
        """
        try:
            return self._rows(config or {})
        except (WanFixesError, OSError) as error:
            return (_unknown("models", error),)

    def _rows(self, config: Mapping[str, Any]) -> tuple[ModelRow, ...]:
        ensurer = self._ensurer_of_now()
        runs, rows = self._latest_runs(), []
        found: dict[str, tuple[ModelEnsurer, Target]] = {}
        try:
            named = self._named_by(config)
            if named is not None:
                found[str(named[1].name)] = named
        except WanFixesError as error:  # no reason to hide the others
            rows.append(_unknown(plain(config.get("base_model_name")), error))
        for spec, variant in ensurer.manifest.variants():
            target = ensurer.target(str(spec.name(variant.name)))
            name = str(target.name)
            is_worked_on = name in runs and runs[name].status == "running"
            if is_worked_on or target.folder.is_dir() or target.partial.is_dir():
                found.setdefault(name, (ensurer, target))
        rows += [self._row(*pair, runs.get(name)) for name, pair in found.items()]
        return tuple(rows)

    def _ensurer_of_now(self) -> ModelEnsurer:
        """Made anew when the root or the manifest is another one."""
        manifest = manifest_path()
        now: Mark = (models_root(), manifest, _times(manifest))
        if self._ensurer is None or now != self._made_for:
            resolver = ModelResolver.default()
            self._ensurer = ModelEnsurer(load_manifest(), resolver)
            self._record = record_path(resolver)
            self._made_for = now
            self._looked.clear()
        return self._ensurer

    def _named_by(self, config: Mapping[str, Any]) -> tuple[ModelEnsurer, Target] | None:
        """The model that a configuration means by a name; None for a path, or none at all."""
        text, model_type = (str(config.get(key) or "") for key in ("base_model_name", "model_type"))
        text = str(config.get("model_name") or text)  # as the standalone host records it, beside the folder
        mark: Mark = (text, model_type, self._made_for)
        if self._named[0] != mark:
            named = named_model(text, model_type) if text else None
            pair = None
            if named is not None:
                ensurer = named.ensurer()
                pair = ensurer, ensurer.target(named.name)
            self._named = mark, pair
        return self._named[1]

    def _latest_runs(self) -> dict[str, RunRecord]:
        """What was done last to each model, or is being done, by whichever process."""
        if not self._record.is_file():
            return {}
        try:
            runs = RunReader(self._record, self._clock).runs()
        except WanFixesError:
            return {}  # what is on the disk is seen all the same
        latest = {
            f"{run.config['model_id']}#{run.config.get('variant')}": run
            for run in reversed(runs)
            if run.kind == KIND and "model_id" in run.config
        }
        ids = {run.id for run in latest.values()}
        self._came = {number: came for number, came in self._came.items() if number in ids}
        self._failures = {number: why for number, why in self._failures.items() if number in ids}
        return latest

    def _row(self, ensurer: ModelEnsurer, target: Target, run: RunRecord | None) -> ModelRow:
        name = plain(target.spec.short_name(target.variant.name))
        is_worked_on = run is not None and run.status == "running"
        try:
            status = self._status(ensurer, target, is_changing=is_worked_on)
        except (WanFixesError, OSError) as error:
            return _unknown(name, error)
        there, needed = status.bytes_there, status.bytes_needed or 0
        if run is None or not is_worked_on:
            failure = "" if run is None or status.state is ModelState.COMPLETE else self._failure(run)
            note = "; ".join(filter(None, (failure, _advice(name, status))))
            return ModelRow(name, status.state.value, there, needed, None, None, note)
        operation = str(run.config.get("operation"))
        note = f"{operation} by process {run.pid} on {run.host}"
        if operation not in _FETCHING or status.state is ModelState.COMPLETE:
            return ModelRow(name, ModelState.VERIFYING.value, there, needed, None, None, plain(note))
        speed, sources = self._speed(run)
        origin = f"from {sources}" if sources else ""
        size = "size not known yet" if status.bytes_needed is None else ""
        note = ", ".join(filter(None, (origin, size, note)))
        return ModelRow(name, DOWNLOADING, there, needed, _share(status), speed, plain(note))

    def _failure(self, run: RunRecord) -> str:
        """Why what was done last went wrong; "" where it did not."""
        if run.status != "failed":
            return ""
        if run.id not in self._failures:
            try:
                event = RunReader(self._record, self._clock).last_event(run.id)
            except WanFixesError:
                return ""
            self._failures[run.id] = plain(event.message) if event is not None else ""
        return self._failures[run.id]

    def _status(self, ensurer: ModelEnsurer, target: Target, *, is_changing: bool) -> ModelStatus:
        """What is on the disk, looked at anew where a folder of it has changed."""
        mark, now = _mark(ensurer, target), self._steady()
        known = self._looked.get(str(target.name))
        if known is not None and known.mark == mark and not is_changing and now - known.at < _LOOK_AGAIN_SECONDS:
            return known.status
        status = ensurer.look(target)
        self._looked[str(target.name)] = _Looked(mark, now, status)
        return status

    def _speed(self, run: RunRecord) -> tuple[float | None, str]:
        """Bytes per second of a download, and where they come from: by the counters that its process writes.

        Those of the last half minute; of all since it began until there are two of them.
        """
        try:
            counters = RunReader(self._record, self._clock).counters_of(run.id)
        except WanFixesError:
            return None, ""
        fetched: dict[str, float] = defaultdict(float)
        for name, value in counters.items():
            if name.startswith("fetched_bytes{"):
                fetched[_label(name, "source")] += value
        fetched.pop("linked", None)  # from this machine: that takes no time
        if not fetched:
            return None, ""
        came, now, total = self._came.setdefault(run.id, deque()), self._clock(), sum(fetched.values())
        if not came or came[-1][1] != total:
            came.append((now, total))
        while len(came) > 2 and now - came[1][0] > _RATE_SECONDS:
            came.popleft()
        first_at, first = came[0] if len(came) > 1 else (run.started, 0.0)
        last_at = came[-1][0] if now - came[-1][0] <= _RATE_SECONDS else now
        speed = max(0.0, total - first) / (last_at - first_at) if last_at > first_at else None
        return speed, ", ".join(sorted(fetched))


def _unknown(name: str, error: Exception) -> ModelRow:
    return ModelRow(name, "UNKNOWN", 0, 0, None, None, plain(error))


def _mark(ensurer: ModelEnsurer, target: Target) -> Mark:
    """Differs when a file of the model comes, goes or is replaced, or when it is pinned to something else."""
    folders = [folder for folder in (target.folder, target.partial) if folder.is_dir()]
    below = [folder / component for folder in folders for component in target.spec.components]
    return tuple(map(_times, (*folders, *below, target.folder / VERIFIED_NAME, ensurer.resolver.lock_file)))


def _times(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _share(status: ModelStatus) -> float | None:
    if status.bytes_needed is None:
        return None
    total = status.bytes_there + status.bytes_needed
    return min(1.0, status.bytes_there / total) if total else None


def _advice(name: str, status: ModelStatus) -> str:
    """What there is to do about a model that nobody works on."""
    if status.state is ModelState.CORRUPT:
        damaged = len(status.corrupt)
        return f"{_files(damaged)} damaged: `wan models repair {name}` mends {'it' if damaged == 1 else 'them'}"
    if status.state is ModelState.NOT_PRESENT:
        size = "" if status.bytes_needed is None else f" ({size_text(status.bytes_needed)})"
        return f"`wan models ensure {name}` or a training fetches it{size}"
    if status.state is ModelState.PARTIAL and status.unverified and not status.missing:
        return f"{_files(len(status.unverified))} changed: `wan models verify {name}` reads all of it"
    if status.state is ModelState.PARTIAL:
        return f"`wan models ensure {name}` or a training fetches the rest"
    return ""


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _label(counter: str, label: str) -> str:
    """The value of a label in a counter's name, as `wan_fixes.health.Metrics` writes it: ``name{label=value}``."""
    labels = counter.partition("{")[2].removesuffix("}").split(",")
    return next((value for key, _, value in (part.partition("=") for part in labels) if key == label), "")
