"""Tells whether a path lies on a network file system, where SQLite's write-ahead log cannot be trusted.

SQLite keeps the log's index in shared memory, which other machines do not see: https://sqlite.org/wal.html,
"WAL does not work over a network filesystem". WSL's Windows drives (9p) and virtual machine shares have the same fault.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

import psutil

from wan_fixes.errors import UserError

_LINUX_MOUNTS = Path("/proc/self/mountinfo")
_DRIVE_REMOTE = 4  # GetDriveTypeW's answer for a mapped network drive

# fmt: off
NETWORK_TYPES = frozenset(
    {
        "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "fhgfs", "gfs2", "glusterfs",
        "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb3", "smbfs",
        "vboxsf", "vmhgfs", "webdav",
    }
)
NETWORK_FUSE_TYPES = frozenset(
    {
        "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "curlftpfs", "davfs2", "gcsfuse", "glusterfs",
        "goofys", "gvfsd-fuse", "juicefs", "lizardfs", "mfs", "moosefs", "mount-s3", "mountpoint-s3",
        "rclone", "s3fs", "seaweedfs", "smbnetfs", "sshfs", "vmhgfs-fuse",
    }
)
# fmt: on
# Some FUSE programs do not name their type; rented GPU machines mount MooseFS as plain "fuse" with such a source.
_NETWORK_FUSE_SOURCES = ("mfs#", "mfs:", "juicefs:", "sshfs#", "s3fs", "rclone:")


def network_file_system(path: str | os.PathLike[str]) -> str | None:
    """The type of the network file system that holds `path` ("nfs4", "fuse.sshfs", …), or None for a local one.

    The path itself need not exist: its nearest existing folder answers. What cannot be found out counts as local.
    """
    resolved = Path(path).expanduser().resolve()
    if sys.platform == "win32":
        return _windows_network_share(resolved)
    try:
        return _network_type_of(resolved, _mounts())
    except OSError:  # no /proc in a sandbox
        return None


def require_local_file_system(path: str | os.PathLike[str], what: str) -> None:
    """Raise `UserError` when `path` lies on a network file system; `what` names what was to be kept there."""
    kind = network_file_system(path)
    if kind is not None:
        raise UserError(
            f"{what} cannot be kept on a network file system",
            path=path,
            reason=f"the folder lies on {kind}, where SQLite's write-ahead log loses data",
            fix="choose a folder on a local disk",
        )


def _network_type_of(path: Path, mounts: Iterable[tuple[str, str, str]]) -> str | None:
    """The network type of the innermost of `mounts` (mount point, type, source) above `path`."""
    depth, kind, source, text = -1, "", "", str(path)
    for mount_point, mount_type, mount_source in mounts:
        if not text.startswith(mount_point):
            continue  # as is most often the case, and paths take time to make
        parts = len(Path(mount_point).parts)
        # >=: what is mounted later on the same folder hides what was there.
        if parts >= depth and path.is_relative_to(mount_point):
            depth, kind, source = parts, mount_type.lower(), mount_source.lower()
    if kind in NETWORK_TYPES:
        return kind
    if kind.startswith("fuse.") and kind.removeprefix("fuse.") in NETWORK_FUSE_TYPES:
        return kind
    if kind in ("fuse", "macfuse") and source.startswith(_NETWORK_FUSE_SOURCES):
        return f"{kind} ({source})"
    return None


def _mounts() -> Iterator[tuple[str, str, str]]:
    """(mount point, type, source) of everything mounted, in mount order."""
    if not sys.platform.startswith("linux"):
        for partition in psutil.disk_partitions(all=True):
            yield partition.mountpoint, partition.fstype, partition.device
        return
    # statfs is no help: on 9p it reports the type of the server's disk.
    for line in _LINUX_MOUNTS.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        mount_type, mount_source = after.split(b" ")[:2]
        yield _unescape(before.split(b" ")[4]), os.fsdecode(mount_type), _unescape(mount_source)


def _unescape(field: bytes) -> str:
    r"""Undo the kernel's octal escapes (``\040`` for a space)."""
    head, *rest = field.split(b"\\")
    return os.fsdecode(head + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest))


def _windows_network_share(path: PurePath) -> str | None:
    """`network share` or `network drive`, or None. `\\\\wsl.localhost\\…` counts: it is 9p without locking."""
    drive = path.drive
    if drive.upper().startswith("\\\\?\\UNC\\"):
        return "network share"
    drive = drive.removeprefix("\\\\?\\")
    if drive.startswith("\\\\"):
        return "network share"
    import ctypes

    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    return "network drive" if kernel32.GetDriveTypeW(f"{drive}\\") == _DRIVE_REMOTE else None
