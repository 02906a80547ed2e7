"""One file under two names, so that it takes its place on the disk once."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final

# Of linux/fs.h: share the blocks of another file (btrfs, XFS, bcachefs).
_FICLONE: Final = 0x40049409
_CANNOT_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def share(source: Path, target: Path) -> bool:
    """Make `target` the same file as `source` without copying: by a hard link, else by sharing blocks.

    False, and nothing is there, where the file system can do neither. A hard link has its reference count in the
    file system: what is deleted in one place stays in the others. Raises OSError for whatever else goes wrong, also
    when `target` exists.
    """
    try:
        os.link(source, target)
        return True
    except OSError as error:
        is_refused = error.errno in _CANNOT_LINK or getattr(error, "winerror", None) in (1, 17, 1142)
        if not is_refused or target.exists():
            raise
    return _clone(source, target)


def _clone(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            target.unlink()
            return False
    state = source.stat()
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
    return True


def share_or_point(source: Path, target: Path) -> bool:
    """As `share`; on another drive by a symbolic link, where the system lets us make one.

    A symbolic link at `target` whose file is gone makes room.
    """
    if is_dangling(target):
        target.unlink()
    if share(source, target):
        return True
    try:
        target.symlink_to(source)
    except OSError:
        return False
    return True


def is_dangling(path: Path) -> bool:
    """Whether it is a symbolic link to what cannot be seen: it is gone, or its drive is."""
    return path.is_symlink() and not os.path.exists(path)  # noqa: PTH110 - that raises where a drive is gone


def is_linked(source: Path, target: Path) -> bool:
    """Whether `target` is what `share_or_point` makes of `source`, and neither was replaced or written since."""
    if target.is_symlink():
        return target.resolve() == source
    try:
        one, other = source.stat(), target.stat()
    except OSError:
        return False
    # Shared blocks are two files, of which the second was given the time of the first.
    return os.path.samestat(one, other) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
