"""Tells one process from a later one that got the same number."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import psutil

# The start time is computed from the time of booting, which follows corrections of the clock.
_START_TOLERANCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process on a machine; `started` in seconds since 1970."""

    pid: int
    started: float
    host: str

    @classmethod
    def current(cls) -> ProcessIdentity:
        """This process."""
        return cls(os.getpid(), psutil.Process().create_time(), platform.node())

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None when it belongs to another machine or container."""
        if self.host != platform.node():
            return None
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.started) < _START_TOLERANCE_SECONDS
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # somebody else's process, with the right number
            return True
