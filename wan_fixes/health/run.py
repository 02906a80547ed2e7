"""One run being recorded: every method returns at once, and what it records is written a moment later."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from wan_fixes.health.run_records import GaugeRecord, RunStatus, SampleStatus, StepRecord
from wan_fixes.health.run_writer import Row
from wan_fixes.health.text import mask_secrets, mask_values
from wan_fixes.health.thinning import ThinningHistory

if TYPE_CHECKING:
    from wan_fixes.health.run_database import RunDatabase

VALID: Final = "samples_valid"
"""The counter of samples that are usable: they have no rows of their own, since there may be 100,000."""
WARNED: Final = "samples_warned"
"""The counter of samples with a warning: of those with rows and of those beyond `KEPT_WARNINGS`."""

KEPT_STEPS: Final = 512
KEPT_GAUGES: Final = 512
KEPT_EVENTS: Final = 10_000
KEPT_WARNINGS: Final = 5_000
_EVENTS_BETWEEN_PRUNINGS: Final = 500
_LONGEST_TEXT: Final = 4000  # characters of one message or reason
_NO_REASON: Final = "?"  # what tells apart warnings must not be empty, as that of a verdict is
_LONGEST_READ: Final = 100_000  # characters of it that are searched for secrets

_INSERT_SAMPLE: Final = (
    "INSERT INTO samples (run_id, path, warning, status, module, reason, fix, kind, time) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, path, warning) DO UPDATE SET "
    "status = excluded.status, module = excluded.module, reason = excluded.reason, fix = excluded.fix, "
    "kind = excluded.kind, time = excluded.time"
)
_PUT_COUNTER: Final = "INSERT OR REPLACE INTO counters (run_id, name, value) VALUES (?, ?, ?)"
_PUT_STATE: Final = "INSERT OR REPLACE INTO states (run_id, name, value) VALUES (?, ?, ?)"
_PUT_STEP: Final = (
    "INSERT OR REPLACE INTO steps (run_id, at, step, time, loss, lr, seconds, count, finite) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_GAUGES: Final = "INSERT OR REPLACE INTO gauges (run_id, at, time, value) VALUES (?, ?, ?, ?)"
_PRUNE_EVENTS: Final = (
    "DELETE FROM events WHERE run_id = ? AND id <= "
    "(SELECT id FROM events WHERE run_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)"
)


class Run:
    """Safe to use from any thread.

    In a `with` it finishes by itself: "finished", "interrupted" after Ctrl-C, "failed" after any other exception.
    """

    def __init__(self, run_id: int, database: RunDatabase, first_row: Row, born: tuple[float, int, str]) -> None:
        self.id = run_id
        self.born = born
        """When it began, and in which process of which machine: what tells it from another run of this number."""
        self.is_lost = False
        """Whether the database is no longer the one that it began in: nothing is recorded any more."""
        self._database = database
        self._first_row = first_row
        self._lock = threading.Lock()
        # Digests and not paths: of 100,000 samples they take some 10 MB.
        self._valid: set[bytes] = set()
        self._left_out: set[bytes] = set()
        self._warned: set[bytes] = set()
        self._counts_changed = False
        self._warnings = self._events = 0
        self._counters: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._steps = ThinningHistory[StepRecord](KEPT_STEPS, StepRecord.followed_by)
        self._gauges = ThinningHistory[GaugeRecord](KEPT_GAUGES, lambda _, later: later)

    def event(self, kind: str, message: str, /, **facts: Any) -> None:
        """Record that something happened; `facts` are kept as JSON. Of the events of a run the latest 10,000 stay."""
        now, texts = self._now(), (_text(kind), _text(message), _json(facts))
        with self._lock:
            self._put("INSERT INTO events (run_id, time, kind, message, facts) VALUES (?, ?, ?, ?, ?)", now, *texts)
            self._events += 1
            if self._events % _EVENTS_BETWEEN_PRUNINGS == 0 and self._events > KEPT_EVENTS:
                self._put(_PRUNE_EVENTS, self.id, KEPT_EVENTS)

    def sample(
        self, path: str, status: SampleStatus, module: str = "", reason: str = "", fix: str = "", kind: str = ""
    ) -> None:
        """Record the verdict on a sample, in place of an earlier one, or one more warning beside it.

        Of the warnings of a run the first 5,000 have records; the samples that have one are all counted.
        """
        place = _text(path)
        with self._lock:
            if status == "warning":
                is_kept = self._note_warning(place)
            else:
                is_kept = status != "valid"
                self._note_verdict(place, is_valid=not is_kept)
            if is_kept:
                warning = (_text(reason) or _NO_REASON) if status == "warning" else ""
                texts = map(_text, (status, module, reason, fix, kind))
                self._put(_INSERT_SAMPLE, place, warning, *texts, self._now())

    def _note_warning(self, place: str) -> bool:
        """Whether one more has a record."""
        before = len(self._warned)
        self._warned.add(_digest(place))
        self._counts_changed |= len(self._warned) != before
        self._warnings += 1
        return self._warnings <= KEPT_WARNINGS

    def _note_verdict(self, place: str, *, is_valid: bool) -> None:
        digest = _digest(place)
        before = len(self._valid)
        if is_valid:
            self._valid.add(digest)
            if digest in self._left_out:
                self._left_out.discard(digest)
                self._put("DELETE FROM samples WHERE run_id = ? AND path = ? AND warning = ''", place)
        else:
            self._valid.discard(digest)
            self._left_out.add(digest)
        self._counts_changed |= len(self._valid) != before

    def counters(self, values: Mapping[str, float]) -> None:
        """Set counters to their values of now, for example from `Metrics.snapshot`; what is no number is left out."""
        with self._lock:
            for name, value in values.items():
                if not math.isfinite(value):
                    continue
                self._counters[_text(name)] = float(value)
                self._put(_PUT_COUNTER, _text(name), float(value))

    def gauges(self, values: Mapping[str, float]) -> None:
        """Record what was measured at this moment; in a long run the points in time become sparser."""
        with self._lock:
            are_all_new = self._gauges.add(GaugeRecord(self._now(), dict(values)))
            self._put_rows(self._gauge_rows(None if are_all_new else len(self._gauges.points) - 1))

    def state(self, name: str, value: Any) -> None:
        """Set what `name` is like now, as JSON: the pipeline's modules, the breakers, …"""
        with self._lock:
            self._states[_text(name)] = _json(value)
            self._put(_PUT_STATE, _text(name), self._states[_text(name)])

    def step(self, global_step: int, loss: float, lr: float, seconds: float) -> None:
        """Record an optimizer step that took `seconds`; in a long run neighbouring steps are put together."""
        loss = float(loss)
        step = StepRecord(int(global_step), self._now(), loss, float(lr), float(seconds), 1, int(math.isfinite(loss)))
        with self._lock:
            are_all_new = self._steps.add(step)
            self._put_rows(self._step_rows(None if are_all_new else len(self._steps.points) - 1))

    def finish(self, status: RunStatus = "finished") -> None:
        """End the run ("finished", "interrupted", "failed") and write everything. Only the first call counts."""
        self._database._finish(self, status)

    def flush(self) -> None:
        """Wait until everything recorded so far is in the file."""
        self._database.flush()

    def take_changes(self) -> list[Row]:
        """What has changed too often to be put down each time: 100,000 samples are valid within a moment."""
        with self._lock:
            has_changed, self._counts_changed = self._counts_changed, False
            return self._count_rows() if has_changed else []

    def _count_rows(self) -> list[Row]:
        counts = {VALID: len(self._valid), WARNED: len(self._warned)}
        return [(_PUT_COUNTER, (self.id, name, count)) for name, count in counts.items()]

    def rows_anew(self) -> list[Row]:
        """What a database made anew in the middle of the run must hold, as far as it is still known."""
        with self._lock:
            counters = [(_PUT_COUNTER, (self.id, name, value)) for name, value in self._counters.items()]
            states = [(_PUT_STATE, (self.id, name, value)) for name, value in self._states.items()]
            return [
                self._first_row,
                *self._count_rows(),
                *counters,
                *states,
                *self._step_rows(None),
                *self._gauge_rows(None),
            ]

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("finished")
        else:
            self.finish("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _step_rows(self, at: int | None) -> list[Row]:
        def row(at: int) -> Row:
            point = self._steps.points[at]
            facts = (point.step, point.time, point.loss, point.lr, point.seconds, point.count, point.finite)
            return _PUT_STEP, (self.id, at, *facts)

        return _rows("steps", self.id, len(self._steps.points), at, row)

    def _gauge_rows(self, at: int | None) -> list[Row]:
        def row(at: int) -> Row:
            point = self._gauges.points[at]
            return _PUT_GAUGES, (self.id, at, point.time, json.dumps(point.values))

        return _rows("gauges", self.id, len(self._gauges.points), at, row)

    def _put(self, statement: str, *parameters: Any) -> None:
        self._put_rows([(statement, (self.id, *parameters))])

    def _put_rows(self, rows: list[Row]) -> None:
        if not self.is_lost:
            for row in rows:
                self._database._put(*row)

    def _now(self) -> float:
        return self._database._clock()


def _rows(table: str, run_id: int, count: int, at: int | None, row: Callable[[int], Row]) -> list[Row]:
    """The row at this place of a history, or with None all of them in place of those that are there."""
    if at is not None:
        return [row(at)]
    return [(f"DELETE FROM {table} WHERE run_id = ?", (run_id,)), *(row(place) for place in range(count))]


def _text(value: object) -> str:
    """Text that SQLite can hold: bounded, secrets masked, with file names that are no UTF-8 spelled out."""
    if not value:
        return ""
    text = mask_secrets(str(value)[:_LONGEST_READ])[:_LONGEST_TEXT]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json(value: Any) -> str:
    return json.dumps(mask_values(value))


def _digest(place: str) -> bytes:
    return hashlib.blake2b(place.encode("utf-8"), digest_size=8).digest()
