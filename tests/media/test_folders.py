"""Scanning folders: the same list everywhere, no loop, nothing that is no file, and every omission said."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from wan_fixes.media import is_image, is_video, scan_folder

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def _names(folder: Path, **options) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in scan_folder(folder, **options).files]


def test_files_come_sorted_whatever_order_they_were_made_in(tmp_path: Path):
    for name in ("b.mp4", "a/z.mp4", "a.mp4", "c/1.mp4", "a/b/c.mp4", "B.mp4"):
        _touch(tmp_path / name)
    assert _names(tmp_path) == ["B.mp4", "a/b/c.mp4", "a/z.mp4", "a.mp4", "b.mp4", "c/1.mp4"]
    assert _names(tmp_path, recursive=False) == ["B.mp4", "a.mp4", "b.mp4"]
    assert scan_folder(tmp_path).problems == []


def test_hidden_files_and_folders_are_skipped(tmp_path: Path):
    for name in ("a.mp4", "._a.mp4", ".git/b.mp4", ".ipynb_checkpoints/c.png"):
        _touch(tmp_path / name)
    assert _names(tmp_path) == ["a.mp4"]


def test_long_names_and_emoji_are_found(tmp_path: Path):
    names = sorted(["🎬🐇.mp4", "x" * 200 + ".mp4", "Ünïcödé [bold].mp4"])
    for name in names:
        _touch(tmp_path / name)
    assert _names(tmp_path) == names


@posix_only
@pytest.mark.timeout(20)
def test_two_loops_of_links_end_and_each_file_is_found_once(tmp_path: Path):
    for name in ("a/1.mp4", "a/b/2.mp4", "c/3.mp4"):
        _touch(tmp_path / name)
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "a/b/again").symlink_to(tmp_path / "a")
    (tmp_path / "c/self").symlink_to(tmp_path / "c")
    (tmp_path / "a/to_c").symlink_to(tmp_path / "c")
    (tmp_path / "c/to_a").symlink_to(tmp_path / "a")
    assert _names(tmp_path) == ["a/1.mp4", "a/b/2.mp4", "c/3.mp4"]


@posix_only
def test_linked_folders_from_elsewhere_are_entered_once_by_the_first_link(tmp_path: Path):
    _touch(tmp_path / "elsewhere/1.mp4")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/second").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here/first").symlink_to(tmp_path / "elsewhere")
    assert _names(tmp_path / "here") == ["first/1.mp4"]


@posix_only
@pytest.mark.timeout(20)
def test_what_is_no_file_is_reported_and_never_opened(tmp_path: Path):
    good = _touch(tmp_path / "good.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "ring.mp4").symlink_to(tmp_path / "ring.mp4")
    (tmp_path / "linked.mp4").symlink_to(good)
    result = scan_folder(tmp_path)
    assert [path.name for path in result.files] == ["good.mp4", "linked.mp4"]
    assert [(path.name, bool(reason)) for path, reason in result.problems] == [
        ("broken.mp4", True),
        ("pipe.mp4", True),
        ("ring.mp4", True),
    ]


def test_a_folder_that_cannot_be_read_is_reported_and_the_rest_is_found(tmp_path: Path, monkeypatch):
    _touch(tmp_path / "a.mp4")
    _touch(tmp_path / "locked/b.mp4")
    open_folder = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return open_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = scan_folder(tmp_path)
    assert [path.name for path in result.files] == ["a.mp4"]
    assert result.problems == [(tmp_path / "locked", "no permission to read the folder")]


def test_a_missing_folder_is_a_problem_not_a_crash(tmp_path: Path):
    result = scan_folder(tmp_path / "nowhere")
    assert result.files == [] and "does not exist" in result.problems[0][1]


def test_extensions_are_matched_in_any_case():
    assert is_video("A.MP4") and is_video(Path("x/y.webm")) and not is_video("a.png") and not is_video("mp4")
    assert is_image("A.JPeG") and not is_image("a.mp4") and not is_image("jpg")
