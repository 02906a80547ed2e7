"""When a model was last used, who uses it now, and whether it may go at all."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any, Final

import filelock

from wan_fixes.models.correlation import model_logger
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.layout import ModelResolver, not_writable
from wan_fixes.models.locks import LockManager
from wan_fixes.models.names import ModelName

_FORMAT: Final = 1
_TRIES: Final = 20

logger = model_logger(__name__)

# What this process uses, until it ends: the system lets go of the locks then, however it ends.
_held: list[filelock.BaseFileLock] = []


class UsageLog:
    """Of the models below one root."""

    def __init__(self, resolver: ModelResolver, locks: LockManager) -> None:
        self._resolver = resolver
        self._locks = locks
        self._times = resolver.state / "used"
        self._pinned = resolver.state / "pinned.json"

    def use(self, name: ModelName) -> None:
        """This process uses a model from now on, until it ends. Where nothing can be written, nothing is noted."""
        with contextlib.suppress(OSError):
            folder = self._users(name.folder_name)
            folder.mkdir(parents=True, exist_ok=True)
            if not any(_has_held(folder) for _ in range(_TRIES)):
                logger.warning("%s is used, which could not be noted: others look at it all the time", name)
        self.note(name)

    def note(self, name: ModelName) -> None:
        """Write down that a model is used at this moment."""
        with contextlib.suppress(OSError):
            self._times.mkdir(parents=True, exist_ok=True)
            (self._times / name.folder_name).touch()

    def last_used(self, folder_name: str) -> float | None:
        """When, in seconds since 1970; None where it never was."""
        try:
            return min((self._times / folder_name).stat().st_mtime, time.time())
        except OSError:
            return None

    def is_in_use(self, folder_name: str) -> bool:
        """Whether a living process uses it. What dead ones left is cleared away."""
        try:
            users = list(self._users(folder_name).iterdir())
        except OSError:
            return False
        held = [path for path in users if _is_held(path)]  # all are looked at: what the dead left is cleared away
        return bool(held)

    def pin(self, name: ModelName) -> None:
        """Let nothing remove a model. Raises ModelError where that cannot be written down."""
        self._change_pinned(name, is_pinned=True)

    def unpin(self, name: ModelName) -> None:
        """Let it go again. Raises ModelError."""
        self._change_pinned(name, is_pinned=False)

    def pinned(self) -> set[str]:
        """The names of the folders that nothing removes."""
        content: Any = read_json(self._pinned)
        names = content.get("folders") if isinstance(content, dict) and content.get("format") == _FORMAT else None
        return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()

    def _change_pinned(self, name: ModelName, *, is_pinned: bool) -> None:
        with self._locks.hold("pinned", timeout=30.0):
            names = self.pinned() - {name.folder_name} | ({name.folder_name} if is_pinned else set())
            write_json(self._pinned, {"format": _FORMAT, "folders": sorted(names)})

    def _users(self, folder_name: str) -> Path:
        return self._resolver.locks / "use" / folder_name


def _has_held(folder: Path) -> bool:
    """Hold a lock in a folder until this process ends; False where somebody looks at it at this very moment."""
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.lock"
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    if not path.exists():  # who looked at it took it for a dead one's
        lock.release()
        return False
    _held.append(lock)
    return True


def _is_held(path: Path) -> bool:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError as error:
        raise not_writable(path, error) from error
    with contextlib.suppress(OSError):
        path.unlink()  # while we have it, so that nobody has it after that
    lock.release()
    if os.name == "nt":  # what is open cannot be deleted there, and what somebody has cannot either
        with contextlib.suppress(OSError):
            path.unlink()
    return False
