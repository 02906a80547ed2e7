"""Which entries are just being made, by any process: locks that end with the process that holds them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock

logger = logging.getLogger(__name__)


class Making:
    """Locks on files in one folder: 256, as keys that begin alike share one, and not one for each entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._works = True

    @contextlib.contextmanager
    def hold(self, key: str, patience: float) -> Iterator[bool]:
        """Whether the caller is to make the entry, which nobody else does until the end of the block.

        False when somebody, in this process or another one, still holds the lock after `patience` seconds. Where the
        file system knows no locks, it is always True: two processes may then make the same entry, and one is kept.
        """
        lock = filelock.FileLock(self._folder / f"{key[:2]}.lock", timeout=patience)
        try:
            if self._works:
                lock.acquire()
        except filelock.Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            self._works = False
            logger.warning("%s cannot be locked (%s): other processes may make the same entries", self._folder, error)
        try:
            yield True
        finally:
            lock.release()
