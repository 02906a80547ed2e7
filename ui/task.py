"""One piece of work in a thread of its own: how far it is, what came of it, and an end to it. Knows no widget."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Literal

from wan_fixes.errors import WanFixesError
from wan_fixes.health import plain

TaskState = Literal["running", "done", "failed", "stopped"]

MOST_LINES: Final = 4000
_LONGEST_LINE: Final = 4096  # characters: a path that is cut cannot be copied

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The user has ended the work."""


class Task:
    """Something that is done in the background. Safe to look at from any thread; nothing is ever raised.

    Attributes
    ----------
    title:
        What it is, for people.
    state:
        "running", then "done", "failed" or "stopped".
    done, total:
        How far it is, of how much; 0 where that is not known.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.state: TaskState = "running"
        self.done = 0
        self.total = 0
        self._lines: list[str] = []
        self._left_out = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ended = threading.Event()

    @property
    def lines(self) -> tuple[str, ...]:
        """What came of it, for people: safe plain text, the newest last.

        Of very many the first ones, and how many more there are.
        """
        with self._lock:
            more = (f"… and {self._left_out} more",) if self._left_out else ()
            return (*self._lines, *more)

    def stop(self) -> None:
        """Ask it to end soon. What was done until then stays done."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False where the time is over before."""
        return self._ended.wait(seconds)

    # For what does the work

    def say(self, *lines: str) -> None:
        """Add lines; secrets in them are masked."""
        safe = [plain(line, _LONGEST_LINE) for line in lines]
        with self._lock:
            room = max(0, MOST_LINES - len(self._lines))
            self._lines += safe[:room]
            self._left_out += len(safe[room:])

    def progress(self, done: int, total: int) -> None:
        """So much is done. Raises `Stopped` once the user has ended it: work that calls this often ends soon."""
        self.done, self.total = done, total
        self.check()

    def check(self) -> None:
        """Raise `Stopped` once the user has ended it."""
        if self._stop.is_set():
            raise Stopped

    def begin(self, work: Callable[[Task], None]) -> Task:
        """Have the work done in a thread of its own."""
        threading.Thread(target=self.run, args=(work,), name="wan-task", daemon=True).start()
        return self

    def run(self, work: Callable[[Task], None]) -> Task:
        """Do the work in this thread."""
        state: TaskState = "failed"
        try:
            work(self)
            state = "done"
        except Stopped:
            self.say("stopped before it was complete")
            state = "stopped"
        except WanFixesError as error:
            self.say(str(error))
        except Exception as error:  # whatever it is, the user reads it here and the window lives on
            logger.exception("%s failed", self.title)
            self.say(f"an unexpected error: {type(error).__name__}: {error} (please report it, with the log)")
        self.state = state
        self._ended.set()
        return self
