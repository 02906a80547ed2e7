"""What is decrypted is the user's alone, and goes with the process that needs it (M14)."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from wan_fixes.models import ErrorCode, ModelError, ModelResolver, private_folder
from wan_fixes.models.private_folder import PrivateFolders, private_place, remove

CHECKOUT = str(Path(__file__).resolve().parent.parent.parent)
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has neither such modes nor forks")


@posix
def test_m14_a_private_folder_is_the_user_s_alone_and_goes(tmp_path: Path) -> None:
    folders = PrivateFolders(ModelResolver(tmp_path))
    folder = folders.make()
    assert folder.parent == tmp_path / ".tmp" / "private" and folder.name.startswith(f"{os.getpid()}-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "file").write_bytes(b"weights")
    assert folders.sweep() == ()
    assert (folder / "file").exists()
    remove(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["guard"]


def test_m14_on_windows_it_is_in_the_profile(tmp_path: Path) -> None:
    place = private_place(ModelResolver(tmp_path), windows=True)
    assert place == Path(platformdirs.user_cache_dir("wan-fixes", appauthor=False)) / "private"


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from wan_fixes.models import ModelResolver
from wan_fixes.models.private_folder import PrivateFolders
folder = PrivateFolders(ModelResolver(Path(sys.argv[2]))).make()
(folder / "file").write_bytes(b"weights")
print(folder, flush=True)
if sys.argv[3] == "stay":
    time.sleep(60)
"""


@contextlib.contextmanager
def owner(root: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a private folder."""
    arguments = [sys.executable, "-c", CHILD, CHECKOUT, str(root), how]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child, Path(child.stdout.readline().strip())
    finally:
        child.kill()
        child.communicate()


def test_m14_a_private_folder_ends_with_its_process(tmp_path: Path) -> None:
    with owner(tmp_path, "leave") as (child, folder):
        assert child.wait(30) == 0
        assert not folder.exists()


def test_m14_what_a_killed_process_left_is_swept_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    folders = PrivateFolders(ModelResolver(tmp_path))
    with owner(tmp_path, "stay") as (child, folder), owner(tmp_path, "stay") as (_, of_the_living):
        assert folders.sweep() == ()
        child.kill()
        child.wait(30)
        assert (folder / "file").exists()
        assert folders.sweep() == (folder,)
        assert not folder.exists() and (of_the_living / "file").exists()
        assert folders.sweep() == ()


def test_m14_a_folder_whose_lock_went_first_is_swept(tmp_path: Path) -> None:
    """As Windows leaves one: a file of it was mapped still when its process ended, and the lock went all the same."""
    folders = PrivateFolders(ModelResolver(tmp_path))
    mine = folders.make()
    left = folders.place / "12345-0123456789abcdef"
    left.mkdir()
    (left / "file").write_bytes(b"weights")
    (folders.place / "of somebody else").mkdir()
    with owner(tmp_path, "stay") as (_, of_another):
        assert folders.sweep() == (left,)
        assert mine.is_dir() and (of_another / "file").exists()
        assert folders.sweep() == ()
    assert not left.exists() and (folders.place / "of somebody else").is_dir()
    remove(mine)
    assert not list(folders.place.glob("12345-*"))


@posix
def test_m14_a_fork_leaves_the_folder_to_its_owner(tmp_path: Path) -> None:
    folder = PrivateFolders(ModelResolver(tmp_path)).make()
    child = os.fork()
    if child == 0:
        private_folder._remove_all()
        os._exit(0)
    os.waitpid(child, 0)
    assert folder.is_dir()
    remove(folder)


@posix
def test_m14_where_the_mode_cannot_be_had_there_is_no_folder(tmp_path: Path) -> None:
    """As on a file system that knows no modes."""
    folders = PrivateFolders(ModelResolver(tmp_path))
    before = os.umask(0o100)
    try:
        with pytest.raises(ModelError, match="mode 600") as caught:
            folders.make()
    finally:
        os.umask(before)
    assert caught.value.code is ErrorCode.NOT_WRITABLE
    assert [path.name for path in folders.place.iterdir()] == ["guard"]
