"""Making room: what was not used for long, and what was used least while all is too much. Planned first, then done."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import REMOVING_NAME, VERIFIED_NAME, Verified
from wan_fixes.models.json_file import read_json
from wan_fixes.models.layout import is_old_version, model_folder_name
from wan_fixes.models.nearby import model_folders
from wan_fixes.models.private_folder import PrivateFolders
from wan_fixes.models.publishing import disk_errors
from wan_fixes.models.quota import DEFAULT_QUOTA

DEFAULT_AGE_DAYS: Final = 30.0

Reason = Literal["age", "size", "old version", "unfinished", "half removed"]


@dataclass(frozen=True)
class GcPolicy:
    """What may go.

    Attributes
    ----------
    max_bytes:
        The models used least recently go until the others take no more than that; the last one used stays.
    max_age_days:
        Models, old versions and unfinished downloads go when they were not used for so long.
    """

    max_bytes: int = DEFAULT_QUOTA
    max_age_days: float = DEFAULT_AGE_DAYS


@dataclass(frozen=True)
class Removable:
    """What can go.

    Attributes
    ----------
    bytes:
        That are free once it and what comes before it in the plan are gone: a file that stays elsewhere frees nothing.
    last_used:
        Seconds since 1970.
    """

    folder: Path
    name: str
    reason: Reason
    bytes: int
    last_used: float


@dataclass(frozen=True)
class Kept:
    """What would go, and stays, since it is pinned or somebody uses it."""

    folder: Path
    name: str
    why: Literal["pinned", "in use", "the last one used"]


@dataclass(frozen=True)
class GcPlan:
    """What can go and what stays, and the bytes on the disk now."""

    removable: tuple[Removable, ...]
    kept: tuple[Kept, ...]
    bytes: int

    @property
    def reclaimed(self) -> int:
        """Bytes that are free once all of it is gone."""
        return sum(one.bytes for one in self.removable)


@dataclass(frozen=True)
class _Folder:
    path: Path
    name: str
    last_used: float
    files: tuple[Path, ...]


class ModelGc:
    """Removes models below one root: only files that have a record of ours, and what downloads left behind."""

    def __init__(self, ensurer: ModelEnsurer) -> None:
        self._resolver = ensurer.resolver
        self._locks = ensurer.locks
        self._usage = ensurer.usage
        self._recorder = ensurer.recorder

    def plan(self, policy: GcPolicy | None = None, *, now: float | None = None) -> GcPlan:
        """What can go. Nothing is changed."""
        policy = policy or GcPolicy()
        now = time.time() if now is None else now
        oldest = now - policy.max_age_days * 86400.0
        folders = sorted(self._folders(), key=lambda folder: folder.last_used)
        links = _Links([folder.files for folder in folders])
        total = links.bytes_left
        pinned = self._usage.pinned()
        current = [folder for folder in folders if not is_old_version(folder.path)]
        last = current[-1].path if current else None
        removable: list[Removable] = []
        kept: list[Kept] = []
        for path in self._half_removed():
            removable.append(Removable(path, path.name, "half removed", _bytes_below(path), 0.0))
        for path, used in self._unfinished():
            if used < oldest:
                removable.append(Removable(path, path.name, "unfinished", _bytes_below(path), used))
        for by_age in (True, False):
            for folder in folders:
                is_gone = any(one.folder == folder.path for one in removable)
                is_due = folder.last_used < oldest if by_age else links.bytes_left > policy.max_bytes
                if is_gone or not is_due:
                    continue
                why = self._why_kept(folder, pinned, None if by_age else last)
                if why is None:
                    reason: Reason = "old version" if is_old_version(folder.path) else "age" if by_age else "size"
                    freed = links.remove(folder.files)
                    removable.append(Removable(folder.path, folder.name, reason, freed, folder.last_used))
                elif all(one.folder != folder.path for one in kept):
                    kept.append(Kept(folder.path, folder.name, why))
        return GcPlan(tuple(removable), tuple(kept), total)

    def collect(self, plan: GcPlan, on_done: Callable[[int], None] = lambda _: None) -> tuple[Removable, ...]:
        """Remove what was planned, and return what is gone: what somebody began to use meanwhile stays.

        Raises ModelError where the disk refuses.
        """
        gone: list[Removable] = []
        with self._recorder.operation("gc") as operation:
            for number, one in enumerate(plan.removable, 1):
                with contextlib.suppress(_BusyError), disk_errors(one.folder):
                    self._remove(one)
                    gone.append(one)
                    operation.count("reclaimed_bytes", one.bytes)
                    operation.tell("removed", f"{one.name} is gone: {one.reason}", bytes=one.bytes)
                on_done(number)
        PrivateFolders(self._resolver).sweep()
        return tuple(gone)

    def _remove(self, one: Removable) -> None:
        name = model_folder_name(one.folder)
        if one.reason == "unfinished":
            with self._lock(name.removesuffix(".partial").removesuffix(".next")):
                shutil.rmtree(one.folder)
            return
        with self._lock(name):
            is_wanted = self._usage.is_in_use(name) or name in self._usage.pinned()
            if one.reason != "half removed" and (is_wanted or self._last_used(one.folder) > one.last_used):
                raise _BusyError
            remove_model(one.folder)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        try:
            with self._locks.hold(name, timeout=0.0):
                yield
        except ModelError as error:
            if error.code is ErrorCode.LOCK_TIMEOUT:
                raise _BusyError from error
            raise

    def _folders(self) -> Iterable[_Folder]:
        for path in model_folders(self._resolver.root):
            verified = Verified.read(path)
            if verified is not None:
                files = tuple(path / name for name in verified.files)
                name = f"{verified.name} ({path.name})" if is_old_version(path) else verified.name
                yield _Folder(path, name, self._last_used(path), files)

    def _last_used(self, path: Path) -> float:
        """A model that was never used counts from when it was verified, an old version from when it was put aside."""
        used = None if is_old_version(path) else self._usage.last_used(path.name)
        with contextlib.suppress(OSError):
            return used if used is not None else (path / VERIFIED_NAME).stat().st_ctime
        return 0.0

    def _why_kept(self, folder: _Folder, pinned: set[str], last: Path | None) -> Any:
        if model_folder_name(folder.path) in pinned:
            return "pinned"
        if self._usage.is_in_use(model_folder_name(folder.path)):
            return "in use"
        return "the last one used" if folder.path == last else None

    def _half_removed(self) -> list[Path]:
        patterns = (f"wan2?/*/{REMOVING_NAME}", f"versions/*/*/{REMOVING_NAME}")
        found = sorted(path.parent for pattern in patterns for path in self._resolver.root.glob(pattern))
        return [folder for folder in found if not (folder / VERIFIED_NAME).exists()]

    def _unfinished(self) -> list[tuple[Path, float]]:
        """Downloads that nobody works on, and when something of them came last."""
        found = []
        for pattern in ("*.partial", "*.next"):
            for path in self._resolver.temporary.glob(pattern):
                times = [inner.stat().st_mtime for inner in path.rglob("*")] or [path.stat().st_mtime]
                found.append((path, max(times)))
        return found


class _Links:
    """Which names the files have, so that what a removal frees is known."""

    def __init__(self, models: Iterable[Iterable[Path]]) -> None:
        self._sizes: dict[tuple[int, int], int] = {}
        self._names: dict[tuple[int, int], int] = {}
        for path in (path for model in models for path in model):
            key, state = _inode(path)
            if key is not None:
                self._sizes[key] = state.st_size
                self._names.setdefault(key, state.st_nlink)

    @property
    def bytes_left(self) -> int:
        """On the disk, each file once."""
        return sum(size for key, size in self._sizes.items() if self._names[key] > 0)

    def remove(self, files: Iterable[Path]) -> int:
        """Count these names as gone; returns the bytes that are free then."""
        freed = 0
        for path in files:
            key, _ = _inode(path)
            if key is not None and self._names[key] > 0:
                self._names[key] -= 1
                freed += self._sizes[key] if self._names[key] == 0 else 0
        return freed


def _inode(path: Path) -> tuple[Any, Any]:
    """What a file is on the disk; None for what lies elsewhere (a symbolic link), or is not there."""
    try:
        state = path.lstat()
    except OSError:
        return None, None
    is_link = path.is_symlink()
    return (None, None) if is_link else ((state.st_dev, state.st_ino), state)


def remove_model(folder: Path) -> None:
    """Delete the files that we have a record of, and no others; the folder too when nothing else is in it."""
    record = folder / REMOVING_NAME
    if not record.exists():
        (folder / VERIFIED_NAME).replace(record)
    content: Any = read_json(record)
    for name in content["files"] if isinstance(content, dict) else ():
        (folder / name).unlink(missing_ok=True)
    record.unlink()
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _bytes_below(folder: Path) -> int:
    return sum(os.lstat(path).st_size for path in folder.rglob("*") if not path.is_dir())


class _BusyError(Exception):
    """Somebody works on it, or began to use it."""
