"""Network file systems are recognised from the mount table, and refused with a message."""

from __future__ import annotations

import ctypes
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from wan_fixes import filesystem
from wan_fixes.errors import UserError
from wan_fixes.filesystem import network_file_system, require_local_file_system

MOUNTINFO = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /mnt/films rw,relatime shared:7 master:2 - nfs4 server:/films rw
31 27 0:41 / /mnt/films/scratch rw - xfs /dev/vdb rw
32 27 0:42 / /mnt/my\040share rw - cifs //nas/share rw
33 27 0:43 / /mnt/c rw - 9p drvfs rw,aname=drvfs
34 27 0:44 / /mnt/remote rw - fuse.sshfs me@host: rw
35 27 0:45 / /workspace rw - fuse mfs#eu.example.net:9421 rw
36 27 0:46 / /mnt/ntfs rw - fuseblk /dev/sdb1 rw
37 27 0:47 / /mnt/over rw - nfs server:/a rw
38 27 0:48 / /mnt/over rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(MOUNTINFO)
    monkeypatch.setattr(filesystem, "_LINUX_MOUNTS", table)
    monkeypatch.setattr(filesystem.sys, "platform", "linux")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me", None),
        ("/mnt/films", "nfs4"),
        ("/mnt/films/a/b.sqlite", "nfs4"),
        ("/mnt/films/scratch/run", None),
        ("/mnt/filmsandmore", None),
        ("/mnt/my share/x", "cifs"),
        ("/mnt/c/Users", "9p"),
        ("/mnt/remote/x", "fuse.sshfs"),
        ("/workspace/run", "fuse (mfs#eu.example.net:9421)"),
        ("/mnt/ntfs", None),
        ("/mnt/over/x", None),
    ],
)
@pytest.mark.usefixtures("mounts")
def test_innermost_mount_decides(path: str, expected: str | None) -> None:
    assert network_file_system(path) == expected


@pytest.mark.usefixtures("mounts")
def test_refusal_names_what_where_and_the_way_out() -> None:
    with pytest.raises(UserError) as caught:
        require_local_file_system("/mnt/films/run.sqlite", "the run database")
    message = str(caught.value)
    assert "the run database" in message
    assert "/mnt/films/run.sqlite" in message
    assert "nfs4" in message
    assert "local disk" in message


def test_a_machine_without_a_mount_table_counts_as_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_LINUX_MOUNTS", tmp_path / "absent")
    monkeypatch.setattr(filesystem.sys, "platform", "linux")
    assert network_file_system(tmp_path) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"\\nas\share\runs", "network share"),
        (r"\\?\UNC\nas\share\runs", "network share"),
        (r"\\wsl.localhost\Ubuntu\home", "network share"),
        (r"Z:\runs", "network drive"),
        (r"C:\runs", None),
        (r"\\?\C:\runs", None),
    ],
)
def test_windows_shares_and_mapped_drives_count(
    path: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_types = SimpleNamespace(GetDriveTypeW=lambda root: {"Z:\\": 4, "C:\\": 3}[root])
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=drive_types), raising=False)
    assert filesystem._windows_network_share(PureWindowsPath(path)) == expected


def test_the_temporary_folder_of_this_machine_is_local(tmp_path: Path) -> None:
    require_local_file_system(tmp_path / "not" / "there" / "yet", "the run database")
