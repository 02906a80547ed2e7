"""One process at a time works on a model; the others wait, and take over from one that died."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import filelock

from wan_fixes.models.correlation import model_logger
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.layout import not_writable
from wan_fixes.models.stopping import stopped

_LOOK_SECONDS: Final = 1.0
#: Who only looks has a lock for less, and says nothing; who works says so, unless the disk refuses.
_GLANCE_SECONDS: Final = 1.0
_GLANCE_AT_HOLDER_SECONDS: Final = 0.05
_GLANCE_AGAIN_SECONDS: Final = 0.005

logger = model_logger(__name__)


class LockManager:
    """Locks by name, as files in one folder.

    They are the system's own (`flock`, `LockFileEx`): when their process ends, however it does, they are free. A file
    beside each says who has it, for people; nothing is decided by it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def hold(
        self,
        name: str,
        timeout: float | None = None,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[None]:
        """Wait for the lock at most `timeout` seconds (None: for ever), and hold it until the end of the block.

        `on_wait` is told each second who has it; without it that is logged once. Raises ModelError when the time is
        over, and (STOPPED) when `stop` was set and somebody else has it.
        """
        on_wait = on_wait or _log_once(name)
        lock = filelock.FileLock(self._folder / f"{name}.lock")
        until = None if timeout is None else time.monotonic() + timeout
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, max(0.0, until - time.monotonic()))
                try:
                    lock.acquire(timeout=left, poll_interval=0.05)
                    break
                except filelock.Timeout:
                    if stop is not None and stop.is_set():
                        raise stopped(f"{name} was not waited for any longer") from None
                    holder = self.holder(name)
                    if until is not None and time.monotonic() >= until:
                        raise _too_long(self._folder / f"{name}.lock", holder, timeout) from None
                    on_wait(holder)
        except OSError as error:
            raise not_writable(self._folder, error) from error
        try:
            with contextlib.suppress(OSError):
                self._note(name).write_text(json.dumps(_me()), encoding="utf-8")
            yield
        finally:
            with contextlib.suppress(OSError):
                self._note(name).unlink()
            lock.release()

    def is_held(self, name: str) -> bool:
        """Whether somebody has it just now. Where nothing can be locked, nobody has."""
        path = self._folder / f"{name}.lock"
        if not path.exists():
            return False
        lock = filelock.FileLock(path)
        patience = _GLANCE_AT_HOLDER_SECONDS if self._note(name).exists() else _GLANCE_SECONDS
        try:
            lock.acquire(timeout=patience, poll_interval=_GLANCE_AGAIN_SECONDS)
        except filelock.Timeout:
            return True
        except OSError:
            return False
        lock.release()
        return False

    def holder(self, name: str) -> str:
        """Who has it, as far as that is known."""
        try:
            content: Any = json.loads(self._note(name).read_text(encoding="utf-8"))
            return f"process {int(content['pid'])} on {str(content['host'])[:64]}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def _note(self, name: str) -> Path:
        return self._folder / f"{name}.holder.json"


def _log_once(name: str) -> Callable[[str], None]:
    said: set[str] = set()

    def log(holder: str) -> None:
        if not said:
            said.add(holder)
            logger.warning("waiting for %s, which works on %s", holder, name)

    return log


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node(), "since": time.time()}


def _too_long(path: Path, holder: str, timeout: float | None) -> ModelError:
    return ModelError(
        ErrorCode.LOCK_TIMEOUT,
        "another process works on this model",
        path=path,
        reason=f"{holder} has had the lock for the {timeout:g} s that were waited",
        fix="wait for it to finish, or end it: the lock goes with it",
    )
