"""Writing a file so that it is there whole and for good, or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import xxhash

from wan_fixes.errors import CriticalError

logger = logging.getLogger(__name__)

# Full disk, used-up quota, and the per-process limit on a file's size.
FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})

DISK_FULL = "disk_full"
"""In the context of an error: there was no room."""

SETTLED_SECONDS = 60.0
ABANDONED_SECONDS = 24 * 3600.0

_HOST = xxhash.xxh32_hexdigest(platform.node().encode())
_TEMPORARY = re.compile(r"(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{32}\.tmp")


def write_atomic(
    target: Path,
    parts: Iterable[bytes | memoryview],
    *,
    temporary_folder: Path,
    size: int | None = None,
    check: Callable[[Path], None] | None = None,
) -> os.stat_result:
    """Write `parts` one after another to `target`, replacing what is there.

    The bytes go to a file in `temporary_folder` (same file system), reach the disk, and only then take the
    name: a reader sees the old file or the new one, and a power cut cannot leave a named file without its bytes.

    Parameters
    ----------
    size:
        Bytes of all parts, where they come one by one and are not to be held in memory.
    check:
        Called with the written file before it takes the name; what it raises ends the writing.

    Returns the file's state (size, mtime, id) as it was written.

    Raises CriticalError when the disk is full or the folder cannot be written; nothing is left behind then.
    """
    if size is None:
        parts = views = [memoryview(part).cast("B") for part in parts]
        size = sum(view.nbytes for view in views)
    temporary = temporary_folder / f"{os.getpid()}-{_HOST}-{uuid.uuid4().hex}.tmp"
    try:
        temporary_folder.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            state = _write(temporary, parts)
            if check is not None:
                check(temporary)
            replace_patiently(temporary, target)
        except BaseException:  # Ctrl-C too must not leave half a file
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(target.parent)
    except OSError as error:
        raise disk_error(error, target, size) from error
    return state


def disk_error(
    error: OSError, path: Path, bytes_needed: int, *, what: str = "cache cannot be written"
) -> CriticalError:
    """What a failed write means to the user.

    `context` has `bytes_needed`, where known `bytes_free`, and where there was no room `DISK_FULL`.
    """
    context: dict[str, int] = {"bytes_needed": bytes_needed}
    with contextlib.suppress(OSError):
        context["bytes_free"] = shutil.disk_usage(_nearest_existing(path)).free
    if error.errno in FULL:
        context[DISK_FULL] = 1
        free = f", {context['bytes_free']} are free" if "bytes_free" in context else ""
        return CriticalError(
            what,
            path=path,
            reason=f"the disk is full or a limit is reached: {bytes_needed} bytes are needed{free}",
            fix="free some space, or choose a cache folder on a larger disk; nothing that was cached is lost",
            context=context,
        )
    return CriticalError(
        what,
        path=path,
        reason=error.strerror or str(error),
        fix="make the cache folder writable, or choose another one",
        context=context,
    )


def clean_temporary(folder: Path) -> int:
    """Delete what killed writers left in `folder`; returns how many files.

    Only names that `write_atomic` gives, and only when the writer is gone: its process (on this machine) is dead
    and the file has not changed for a minute, or it has not changed for a day. The minute is for containers that
    share a host name and not their process numbers.
    """
    removed = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for entry in found:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):  # its writer finished, another process cleans too, or we may not
                if _is_abandoned(entry.stat(follow_symlinks=False), int(match["pid"]), match["host"]):
                    os.unlink(entry.path)  # noqa: PTH108 - an entry of scandir
                    removed += 1
    if removed:
        logger.info("removed %d unfinished cache files of interrupted runs from %s", removed, folder)
    return removed


def _is_abandoned(state: os.stat_result, pid: int, host: str) -> bool:
    age = time.time() - state.st_mtime
    return age > ABANDONED_SECONDS or (age > SETTLED_SECONDS and host == _HOST and not psutil.pid_exists(pid))


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> os.stat_result:
    with path.open("xb", buffering=0) as file:
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest.nbytes:
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    return path.stat()  # after closing, when Windows has settled the time


def replace_patiently(source: Path, target: Path) -> None:
    """Rename a file or folder, in place of a file of that name. Raises OSError.

    Windows refuses while somebody has it open; readers and virus scanners are quick, so that is tried again for a
    moment.
    """
    for pause in (0.01, 0.05, 0.25, 1.0):
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(pause)
    source.replace(target)


def _flush_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut."""
    if os.name == "nt":  # NTFS logs the rename itself, and a folder cannot be opened for it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some file systems flush no folders
            raise
    finally:
        os.close(handle)


def _nearest_existing(path: Path) -> Path:
    return next((parent for parent in (path, *path.parents) if parent.exists()), Path())
