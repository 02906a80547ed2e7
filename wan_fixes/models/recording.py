"""What model files went through, in a run database: who fetched what from where, how long it took, how it ended.

Each operation that had something to do is a run of kind "models". Counters carry the labels model_id (``ID@VERSION``),
variant and source, and no others.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from wan_fixes.errors import WanFixesError
from wan_fixes.health import Metrics, Run, RunDatabase, plain, run_database_path
from wan_fixes.models.correlation import correlated, model_logger
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.names import ModelName

KIND: Final = "models"
Kind = Literal["ensure", "verify", "repair", "gc", "update", "rollback", "migrate"]
#: Seconds between two writings of the counters while bytes come.
_COUNT_SECONDS: Final = 5.0
# Another process works on the model: nothing was done, and nothing failed.
_OF_OTHERS: Final = (ErrorCode.LOCK_TIMEOUT, ErrorCode.STOPPED)
_CANNOT_RECORD: Final = (WanFixesError, OSError, sqlite3.Error, psutil.Error)

logger = model_logger(__name__)


def record_path(resolver: ModelResolver) -> Path:
    """The run database of the models below a root. It need not exist."""
    return run_database_path(resolver.state)


class ModelRecorder:
    """Records operations on model files. Nothing that goes wrong with that reaches the operation.

    The database is opened when the first operation has something to record, and closed when the last one ends; where
    it cannot be opened, that is logged, and tried again with the next operation.
    """

    def __init__(
        self, resolver: ModelResolver, clock: Callable[[], float] = time.monotonic, *, is_on: bool = True
    ) -> None:
        self._resolver = resolver
        self._is_on = is_on
        self._clock = clock
        self._database: RunDatabase | None = None
        self._users = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def operation(self, kind: Kind, name: ModelName | None = None) -> Iterator[Operation]:
        """One operation, on one model or on all of them (None), with a correlation id.

        Recorded is what was begun (`Operation.begin`, and whatever counts or tells), and what fails: a model that was
        complete leaves no trace. A ModelError that passes gets the id into its context.
        """
        with correlated() as correlation_id:
            operation = Operation(self, kind, name, correlation_id, self._clock)
            try:
                yield operation
            except BaseException as error:
                if isinstance(error, ModelError):
                    error.context.setdefault("correlation_id", correlation_id)
                operation.failed(error)
                raise
            else:
                operation.finished()

    def start_run(self, config: dict[str, Any]) -> Run | None:
        """A run in the database, which is opened for it; None where that cannot be, or is switched off."""
        if not self._is_on:
            return None
        with self._lock:
            try:
                database = self._database or RunDatabase(record_path(self._resolver))
            except _CANNOT_RECORD as error:
                self._complain(error)
                return None
            self._database = database
            self._users += 1
        try:
            return database.start_run(KIND, config)
        except _CANNOT_RECORD as error:
            self._complain(error)
            self.end_run()
            return None

    def end_run(self) -> None:
        """Close the database after its last run."""
        with self._lock:
            self._users -= 1
            closing = self._database if self._users == 0 else None
            if closing is not None:
                self._database = None
        if closing is not None:
            closing.close()

    def _complain(self, error: Exception) -> None:
        logger.warning("what happens to the models in %s is not recorded: %s", plain(self._resolver.root), plain(error))


class Operation:
    """One operation as it goes on. Every method is safe to call from any thread."""

    def __init__(
        self,
        recorder: ModelRecorder,
        kind: Kind,
        name: ModelName | None,
        correlation_id: str,
        clock: Callable[[], float],
    ) -> None:
        self.correlation_id = correlation_id
        self._recorder = recorder
        self._kind = kind
        self._of = f"{kind} of {name}" if name is not None else kind
        self._labels = {} if name is None else {"model_id": f"{name.model_id}@{name.version}", "variant": name.variant}
        self._clock = clock
        self._began = self._counted = clock()
        self._metrics = Metrics()
        self._bytes: dict[str, int] = {}
        self._run: Run | None = None
        self._is_begun = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """There is something to do. Only the first call counts."""
        with self._lock:
            if self._is_begun:
                return
            self._is_begun = True
            config = {"operation": self._kind, "correlation_id": self.correlation_id, **self._labels}
            self._run = self._recorder.start_run(config)
        self.tell("started", f"{self._of} began")

    def came(self, source: str, count: int) -> None:
        """Bytes came from a source; less than 0 takes back what turned out useless.

        Of a label such as ``hub:OWNER/NAME`` only ``hub`` is kept, so that there are few of them.
        """
        self.begin()
        source = source.partition(":")[0]
        with self._lock:
            self._bytes[source] = self._bytes.get(source, 0) + count
            self._metrics.count("fetched_bytes", count, source=source, **self._labels)
            now = self._clock()
            is_due = now - self._counted >= _COUNT_SECONDS
            if is_due:
                self._counted = now
        if is_due:
            self._write_counters()

    def count(self, name: str, value: float = 1) -> None:
        """Add to a counter of this model: "reclaimed_bytes", "corrupt_files"."""
        self.begin()
        self._metrics.count(name, value, **self._labels)

    def tell(self, kind: str, message: str, **facts: Any) -> None:
        """Record that something happened."""
        self.begin()
        run = self._run
        if run is not None:
            run.event(kind, message, correlation_id=self.correlation_id, **self._labels, **facts)

    def finished(self) -> None:
        """It came to a good end; nothing is recorded where nothing was begun."""
        if self._is_begun:
            seconds = self._clock() - self._began
            self._metrics.time(self._kind, seconds, **self._labels)
            self.tell("finished", f"{self._of} is done", seconds=seconds, bytes=dict(self._bytes))
            self._end("finished")

    def failed(self, error: BaseException) -> None:
        """It ended with this."""
        if not self._is_begun and getattr(error, "code", None) in _OF_OTHERS:
            return
        seconds = self._clock() - self._began
        code = error.code.value if isinstance(error, ModelError) else type(error).__name__
        is_interrupted = isinstance(error, KeyboardInterrupt) or code == ErrorCode.STOPPED.value
        self.begin()
        self._metrics.time(self._kind, seconds, **self._labels)
        if not is_interrupted:
            self._metrics.count(f"{self._kind}_failures", 1, **self._labels)
        self.tell("failed", f"{self._of}: {error}", code=code, seconds=seconds, bytes=dict(self._bytes))
        self._end("interrupted" if is_interrupted else "failed")

    def _end(self, status: Literal["finished", "interrupted", "failed"]) -> None:
        self._write_counters()
        run, self._run = self._run, None
        if run is not None:
            run.finish(status)
            self._recorder.end_run()

    def _write_counters(self) -> None:
        run = self._run
        if run is not None:
            run.counters(self._metrics.snapshot())
