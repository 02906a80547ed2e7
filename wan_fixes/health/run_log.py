"""The log file of a run, beside whatever the host shows: JSON lines that carry the run's correlation id."""

from __future__ import annotations

import logging
import platform
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import Final

from wan_fixes import __version__
from wan_fixes.errors import WanFixesError
from wan_fixes.health.logs import json_handler
from wan_fixes.health.text import plain

LOG_FILE: Final = Path("logs") / "wan-fixes.jsonl"
"""Below the workspace."""

_PACKAGE: Final = "wan_fixes"
_ID_BYTES: Final = 6

logger = logging.getLogger(__name__)


class RunLog:
    """Writes this package's log into ``logs/wan-fixes.jsonl`` of a workspace, from `open` to `close`.

    What the host shows on its console stays as it is: no handler of others is taken away or moved, and lines that only
    the file is for do not reach them. A file that cannot be written is named in a warning, and that is all.

    Parameters
    ----------
    workspace:
        None for no file; there is a correlation id all the same.

    Attributes
    ----------
    correlation_id:
        Of the run: in each line as ``run``, and in the run database as ``correlation_id`` of its configuration.
    """

    def __init__(self, workspace: str | Path | None) -> None:
        self.correlation_id = secrets.token_hex(_ID_BYTES)
        self._file = None if workspace is None else Path(workspace) / LOG_FILE
        self._handler: logging.Handler | None = None

    def open(self) -> RunLog:
        """Begin to write."""
        if self._file is None or self._handler is not None:
            return self
        try:
            self._handler = json_handler(self._file, self.correlation_id)
        except WanFixesError as error:
            logger.warning("this run has no log file: %s", plain(error))
            return self
        _surroundings.add(self._handler)
        self.note(
            "the log of a run begins",
            version=__version__,
            python=platform.python_version(),
            platform=platform.platform(),
        )
        return self

    def note(
        self, message: str, level: int = logging.INFO, *, error: BaseException | None = None, **facts: str
    ) -> None:
        """A line for the file alone, with what led to it where that is an error."""
        if self._handler is None:
            return
        told = None if error is None else (type(error), error, error.__traceback__)
        self._handler.handle(logger.makeRecord(logger.name, level, "", 0, message, (), told, extra=facts))

    def close(self) -> None:
        """Write no more, and close the file, so that it can be moved or deleted."""
        handler, self._handler = self._handler, None
        if handler is not None:
            _surroundings.remove(handler)
            handler.close()

    def __enter__(self) -> RunLog:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.note("the run ended")
        else:
            self.note("the run ended with an error", logging.ERROR, error=error)
        self.close()


class _Surroundings:
    """The package's logger while log files are open: it lets more through, and the others get what they got before."""

    def __init__(self) -> None:
        self._files: list[logging.Handler] = []
        self._lock = threading.Lock()
        self._filtered: list[tuple[logging.Handler, logging.Filter]] = []
        self._relay: _Relay | None = None
        self._level_before = logging.NOTSET
        self._propagated_before = True

    def add(self, file: logging.Handler) -> None:
        """Have this handler get all from INFO on, or from DEBUG on where the host asks for that."""
        package = logging.getLogger(_PACKAGE)
        with self._lock:
            if not self._files:
                self._step_between(package)
            self._files.append(file)
            package.addHandler(file)

    def remove(self, file: logging.Handler) -> None:
        """Take this handler away; with the last one all is as it was."""
        package = logging.getLogger(_PACKAGE)
        with self._lock:
            package.removeHandler(file)
            self._files.remove(file)
            if not self._files:
                self._step_back(package)

    def _step_between(self, package: logging.Logger) -> None:
        shown = package.getEffectiveLevel()
        self._level_before, self._propagated_before = package.level, package.propagate
        for handler in package.handlers:
            only = _AsBefore(shown)
            handler.addFilter(only)
            self._filtered.append((handler, only))
        if package.propagate:
            self._relay = _Relay(shown, has_company=bool(package.handlers))
            package.addHandler(self._relay)
            package.propagate = False
        package.setLevel(min(shown, logging.INFO))

    def _step_back(self, package: logging.Logger) -> None:
        for handler, only in self._filtered:
            handler.removeFilter(only)
        self._filtered.clear()
        if self._relay is not None:
            package.removeHandler(self._relay)
            self._relay = None
        package.propagate = self._propagated_before
        package.setLevel(self._level_before)


class _AsBefore(logging.Filter):
    """Lets through what was shown without a log file: not what is less grave, nor the lines of a trace."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level and not hasattr(record, "trace")


class _Relay(logging.Handler):
    """Hands records on to the handlers of the loggers above, as propagation would.

    A logger hands all that it lets through to those above, whatever their levels are. And where nobody has set up any
    handler, Python shows warnings on standard error, which having a handler for the file would end.
    """

    def __init__(self, level: int, *, has_company: bool) -> None:
        super().__init__()
        self.addFilter(_AsBefore(level))
        self._has_company = has_company

    def emit(self, record: logging.LogRecord) -> None:
        above = logging.getLogger(_PACKAGE).parent
        if above is not None and (above.hasHandlers() or not self._has_company):
            above.callHandlers(record)


_surroundings = _Surroundings()
