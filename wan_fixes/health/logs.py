"""Log files for programs: JSON lines, safe from what file names and servers put into them, rotated."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from wan_fixes.errors import UserError
from wan_fixes.health.text import mask_secrets, mask_values, plain

_FILE_BYTES: Final = 10 * 1024 * 1024
_FILES_KEPT: Final = 3
_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "run"}

logger = logging.getLogger(__name__)


def json_handler(file: Path, run: str) -> logging.Handler:
    """Appends one JSON object a line to `file`, each with the correlation id `run`; at 10 MB a new file is begun.

    Raises `UserError` when the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(file, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8")
    except OSError as error:
        raise UserError(
            "the log file cannot be written",
            path=file,
            reason=error.strerror or str(error),
            fix="choose another file, or make the folder writable",
        ) from error
    handler.setFormatter(_JsonFormatter(run))
    return handler


class _LogFile(logging.handlers.RotatingFileHandler):
    """Goes on in the same file where it cannot be rotated, and is given up, once and with a word, where it is full."""

    _is_given_up = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_given_up:
            super().emit(record)

    def doRollover(self) -> None:
        try:
            super().doRollover()
        except OSError:  # on Windows another process has it open
            self.maxBytes *= 2  # not tried again with each line: older files have moved on already
            if self.stream is None:
                self.stream = self._open()

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, ValueError)):
            super().handleError(record)
            return
        self._is_given_up = True
        logger.warning("the log file %s is not written any more: %s", plain(self.baseFilename), plain(str(error)))


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, run, thread, process, the `extra` fields, the exception."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        line = mask_values(line) | {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": mask_secrets(record.getMessage()),
            "run": self._run,
            "thread": record.threadName,
            "process": record.process,
        }
        if record.exc_info:
            line["exception"] = mask_secrets(self.formatException(record.exc_info))
        # JSON escapes control characters and, by default, everything that is not ASCII: bidi marks, surrogates.
        return json.dumps(line)
