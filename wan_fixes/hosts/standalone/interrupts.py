"""Ctrl-C while training: the first asks to stop after the batch, the second leaves at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from tqdm import tqdm


class StopOnInterrupt:
    """Within it, Ctrl-C sets `requested` instead of raising in the middle of an update.

    The handler then steps back, so that a second Ctrl-C raises ``KeyboardInterrupt`` as ever. Signals belong to the
    main thread: in another one this does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._raises = False
        self._before: Any = None

    def __enter__(self) -> StopOnInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Within it, Ctrl-C raises at once: nothing is being updated."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        if self._raises:
            raise KeyboardInterrupt
        tqdm.write("stopping after this batch; the state is saved (Ctrl-C again leaves at once)", file=sys.stderr)

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
