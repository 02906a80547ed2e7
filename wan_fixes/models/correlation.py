"""An id for each operation on model files, which ties together what it logged, recorded and raised."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

_ID_BYTES: Final = 6

_current: ContextVar[str] = ContextVar("wan_fixes.models.correlation_id", default="")


def correlation_id() -> str:
    """That of the operation that goes on here; "" outside of any."""
    return _current.get()


@contextlib.contextmanager
def correlated() -> Iterator[str]:
    """Give what happens within the block an id, 12 hex digits. An operation within another one has the other's."""
    outer = _current.get()
    token = _current.set(outer or secrets.token_hex(_ID_BYTES))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def adopt(operation: str) -> None:
    """Work for the operation of that id from now on, in a thread that another one began: threads inherit no context.

    For `ThreadPoolExecutor(initializer=adopt, initargs=(correlation_id(),))`.
    """
    _current.set(operation)


class _WithCorrelationId(logging.Filter):
    """Lets everything pass, with the id as `correlation_id`, which the JSON log has as a field."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = _current.get()
        return True


_WITH_CORRELATION_ID: Final = _WithCorrelationId()


def model_logger(name: str) -> logging.Logger:
    """The logger of a module of this room: its records carry the id.

    A filter on the room's own logger would not see what its modules log: filters are not inherited.
    https://docs.python.org/3/library/logging.html#filter-objects
    """
    logger = logging.getLogger(name)
    logger.addFilter(_WITH_CORRELATION_ID)
    return logger
