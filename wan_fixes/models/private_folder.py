"""Folders for what nobody but the user may read: they go with the process that made them, however it ends.

Beside each lies a lock of the system's, which its process holds until it ends. `sweep` removes the folders whose lock
is free, and those that have none any more: Windows removes it when it is let go of, also where a file that is still
mapped keeps its folder there. Numbers of processes decide nothing: in containers that share a disk they mean nothing to
each other.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Final

import filelock
import platformdirs

from wan_fixes.models.layout import ModelResolver, not_writable
from wan_fixes.models.locks import LockManager

_MODE: Final = 0o700
_LOCK_SUFFIX: Final = ".lock"
#: Of the folders and their locks, and of nothing else that lies there.
_NAMES: Final = "[0-9]*-*"
_WAIT_SECONDS: Final = 60.0


class PrivateFolders:
    """The private folders for models below one root."""

    def __init__(self, resolver: ModelResolver) -> None:
        self.place = private_place(resolver, windows=os.name == "nt")
        self._guard = LockManager(self.place / "guard")

    def make(self) -> Path:
        """A new folder that the user alone can read (mode 0700), for as long as this process lives.

        Raises ModelError where it cannot be made, or the file system knows no modes.
        """
        folder = self.place / f"{os.getpid()}-{uuid.uuid4().hex[:16]}"
        lock = filelock.FileLock(_lock_of(folder), mode=0o600, thread_local=False)
        # Else the lock could be swept between its making and its locking.
        with self._guard.hold("making", timeout=_WAIT_SECONDS):
            try:
                lock.acquire(timeout=0)
                folder.mkdir(mode=_MODE)
                mode = folder.stat().st_mode & 0o777
            except (OSError, filelock.Timeout) as error:
                raise not_writable(folder, error) from error
            _held[folder] = lock, os.getpid()
        if os.name != "nt" and mode != _MODE:
            remove(folder)
            raise not_writable(folder, OSError(f"it has mode {mode:o} there, and not {_MODE:o}"))
        return folder

    def sweep(self) -> tuple[Path, ...]:
        """Remove the folders whose process is dead, and return them. What another user's left cannot be, and stays."""
        if not self.place.is_dir():
            return ()
        gone = []
        with self._guard.hold("making", timeout=_WAIT_SECONDS):
            for folder in sorted({path.with_suffix("") for path in self.place.glob(_NAMES)} - _held.keys()):
                lock = filelock.FileLock(_lock_of(folder), mode=0o600)
                with contextlib.suppress(OSError, filelock.Timeout):
                    lock.acquire(timeout=0)
                    try:
                        if folder.is_dir():
                            shutil.rmtree(folder)
                            gone.append(folder)
                    finally:
                        lock.release()
                    _lock_of(folder).unlink(missing_ok=True)
        return tuple(gone)


def private_place(resolver: ModelResolver, *, windows: bool) -> Path:
    """Where they lie: below the root, so that there is room; on Windows in the user's profile.

    There folders have the rights of the one that they are in, and those of a profile are the user's alone.
    """
    if windows:
        return Path(platformdirs.user_cache_dir("wan-fixes", appauthor=False)) / "private"
    return resolver.temporary / "private"


def remove(folder: Path) -> None:
    """Remove a folder that this process made, and let go of its lock. What cannot be removed is left to `sweep`."""
    lock, _ = _held.pop(folder)
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if not folder.exists():
        with contextlib.suppress(OSError):
            _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK_SUFFIX)


# With the process that made each: a fork has them too, and must not remove them at its end.
_held: dict[Path, tuple[filelock.BaseFileLock, int]] = {}


@atexit.register
def _remove_all() -> None:
    for folder in [folder for folder, (_, pid) in _held.items() if pid == os.getpid()]:
        remove(folder)
