"""Making room: what was not used for long, and what was used least while all is too much. Planned first, then done."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.file_states import bytes_on_disk, states_below, states_of
from wan_fixes.models.installed import REMOVING_NAME, VERIFIED_NAME, Verified
from wan_fixes.models.json_file import read_json
from wan_fixes.models.layout import folders_with
from wan_fixes.models.names import problem_with_path
from wan_fixes.models.nearby import SMALLEST_SHARED
from wan_fixes.models.private_folder import PrivateFolders
from wan_fixes.models.publishing import disk_errors, remove_empty_folders
from wan_fixes.models.quota import DEFAULT_QUOTA

DEFAULT_AGE_DAYS: Final = 30.0
_NEXT_SUFFIX: Final = ".next"
#: What an update puts aside that keeps nothing: it deletes that itself, unless it is killed.
_GONE_SUFFIX: Final = ".gone"

_Inode = tuple[int, int]

Reason = Literal["age", "size", "old version", "unfinished", "half removed"]


@dataclass(frozen=True)
class GcPolicy:
    """What may go.

    Attributes
    ----------
    max_bytes:
        The models used least recently go until the others take no more than that; the last one used stays. A file
        that lies elsewhere too counts nothing: it frees nothing.
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
        total = bytes_on_disk(states_of(path for folder in folders for path in folder.files))
        pinned = self._usage.pinned()
        current = [folder for folder in folders if not self._resolver.is_old_version(folder.path)]
        last = current[-1].path if current else None
        removable: list[Removable] = []
        kept: list[Kept] = []
        for path in self._half_removed():
            removable.append(Removable(path, path.name, "half removed", _bytes_below(path), 0.0))
        for path, used in self._unfinished():
            if used < oldest or path.suffix == _GONE_SUFFIX:
                removable.append(Removable(path, path.name, "unfinished", _bytes_below(path), used))
        for by_age in (True, False):
            for folder in folders:
                is_gone = any(one.folder == folder.path for one in removable)
                is_too_much = links.bytes_left > policy.max_bytes and links.can_free(folder.files)
                is_due = folder.last_used < oldest if by_age else is_too_much
                if is_gone or not is_due:
                    continue
                why = self._why_kept(folder, pinned, None if by_age else last)
                if why is None:
                    is_old = self._resolver.is_old_version(folder.path)
                    reason: Reason = "old version" if is_old else "age" if by_age else "size"
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
        if one.reason == "unfinished":
            with self._lock(one.folder.stem):
                if not one.folder.exists() or self._waits(one.folder) or _newest(one.folder) > one.last_used:
                    raise _BusyError
                shutil.rmtree(one.folder)
            return
        name = self._resolver.folder_name_of(one.folder)
        with self._lock(name):
            if one.reason == "half removed":
                is_busy = not _is_half_removed(one.folder)
            else:
                is_wanted = self._usage.is_in_use(name) or name in self._usage.pinned()
                is_gone = not (one.folder / VERIFIED_NAME).exists()
                is_busy = is_wanted or is_gone or self._last_used(one.folder) > one.last_used
            if is_busy:
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
        for path in folders_with(self._resolver.root, VERIFIED_NAME):
            verified = Verified.read(path)
            if verified is not None:
                files = tuple(path / name for name in verified.files)
                name = f"{verified.name} ({path.name})" if self._resolver.is_old_version(path) else verified.name
                yield _Folder(path, name, self._last_used(path), files)

    def _last_used(self, path: Path) -> float:
        """A model that was never used counts from when it was verified, an old version from when it was put aside."""
        used = None if self._resolver.is_old_version(path) else self._usage.last_used(path.name)
        with contextlib.suppress(OSError):
            return used if used is not None else min((path / VERIFIED_NAME).stat().st_mtime, time.time())
        return 0.0

    def _why_kept(self, folder: _Folder, pinned: set[str], last: Path | None) -> Any:
        name = self._resolver.folder_name_of(folder.path)
        if name in pinned:
            return "pinned"
        if self._usage.is_in_use(name):
            return "in use"
        return "the last one used" if folder.path == last else None

    def _half_removed(self) -> list[Path]:
        return [folder for folder in folders_with(self._resolver.root, REMOVING_NAME) if _is_half_removed(folder)]

    def _unfinished(self) -> list[tuple[Path, float]]:
        """What downloads and updates left behind, and when something of it came last."""
        patterns = ("*.partial", f"*{_NEXT_SUFFIX}", f"*{_GONE_SUFFIX}")
        found = [path for pattern in patterns for path in self._resolver.temporary.glob(pattern)]
        return [(path, _newest(path)) for path in found if not self._waits(path)]

    def _waits(self, path: Path) -> bool:
        """Whether this is a revision that takes a model's place as soon as nobody uses that."""
        return path.suffix == _NEXT_SUFFIX and self._resolver.swap_note(path.stem).exists()


class _Links:
    """Which names files have, so that what a removal frees is known. What has a name elsewhere too is not counted."""

    def __init__(self, models: Iterable[Iterable[Path]]) -> None:
        states = _files(path for model in models for path in model)
        self._sizes = {inode: state.st_size for inode, state in states}
        here = Counter(inode for inode, _ in states)
        self._names = Counter({inode: here[inode] for inode, state in states if state.st_nlink <= here[inode]})

    @property
    def bytes_left(self) -> int:
        """That can be freed, each file once."""
        return sum(self._sizes[inode] for inode in self._names)

    def can_free(self, files: Iterable[Path]) -> bool:
        """Whether removing these frees something, at the latest once those go too that they share files with."""
        # Of a model that lies elsewhere the small files are copies: it is not removed for them.
        inodes = {inode for inode, _ in _files(files)}
        return sum(self._sizes[inode] for inode in inodes if inode in self._names) >= SMALLEST_SHARED

    def remove(self, files: Iterable[Path]) -> int:
        """Count these names as gone; returns the bytes that are free then."""
        before = self.bytes_left
        self._names -= Counter(inode for inode, _ in _files(files))
        return before - self.bytes_left


def _files(paths: Iterable[Path]) -> list[tuple[_Inode, os.stat_result]]:
    """Each file that is there, as the disk knows it, with its state; none that lies elsewhere (a symbolic link)."""
    states = (state for _, state in states_of(paths) if not stat.S_ISLNK(state.st_mode))
    return [((state.st_dev, state.st_ino), state) for state in states]


def remove_model(folder: Path) -> None:
    """Delete the files that we have a record of, and no others; the folder too when nothing else is in it."""
    record = folder / REMOVING_NAME
    with contextlib.suppress(FileNotFoundError):
        (folder / VERIFIED_NAME).replace(record)
    for name in _files_in(record):
        (folder / name).unlink(missing_ok=True)
    record.unlink()
    remove_empty_folders(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _files_in(record: Path) -> list[str]:
    content: Any = read_json(record)
    files: Any = content.get("files") if isinstance(content, dict) else None
    is_sound = isinstance(files, dict) and not any(map(problem_with_path, files))
    return list(files) if is_sound else []


def _is_half_removed(folder: Path) -> bool:
    return (folder / REMOVING_NAME).exists() and not (folder / VERIFIED_NAME).exists()


def _bytes_below(folder: Path) -> int:
    return sum(state.st_size for _, state in states_below(folder))


def _newest(folder: Path) -> float:
    """When a file of those below a folder came last, in seconds since 1970; 0 where there is none."""
    return max((state.st_mtime for _, state in states_below(folder)), default=0.0)


class _BusyError(Exception):
    """Somebody works on it, or began to use it."""
