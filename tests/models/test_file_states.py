"""Files that come and go while they are looked at (M9)."""

from __future__ import annotations

import os
from pathlib import Path

from wan_fixes.models.file_states import bytes_on_disk, states_below


def test_m9_files_that_vanish_are_passed_over(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).write_bytes(bytes(10))
    found = states_below(tmp_path)
    first, _ = next(found)
    for path in tmp_path.iterdir():
        path.unlink()
    assert first.parent == tmp_path and list(found) == []
    assert list(states_below(tmp_path / "nothing")) == []


def test_m9_a_file_with_two_names_counts_once_and_a_link_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(1000))
    os.link(tmp_path / "a" / "file", tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "d").symlink_to(tmp_path / "nothing")
    assert {path.name for path, _ in states_below(tmp_path)} == {"file", "b", "c", "d"}
    assert bytes_on_disk(states_below(tmp_path)) == 1000
