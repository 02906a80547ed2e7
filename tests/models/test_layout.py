"""Where models can lie, and how much room there is (M2, M5)."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from wan_fixes.models.layout import ModelResolver, free_bytes, problem_with_root


@pytest.mark.parametrize(("length", "is_fine"), [(89, True), (90, False)])
def test_m2_the_longest_name_of_a_file_has_room_on_windows(length: int, is_fine: bool) -> None:
    root = PureWindowsPath("C:\\".ljust(length, "x"))
    assert (problem_with_root(root, windows=True) is None) == is_fine


def test_m5_a_drive_that_is_not_there_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(tmp_path / "new" / "folder") > 0
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert free_bytes(tmp_path) == 0


def test_m9_earlier_revisions_are_told_by_the_root_alone(tmp_path: Path) -> None:
    resolver = ModelResolver(tmp_path / "versions")
    assert not resolver.is_old_version(resolver.root / "wan21" / "tiny@1.0.0-original")
    kept = resolver.root / "versions" / "tiny@1.0.0-original" / "0123456789ab"
    assert resolver.is_old_version(kept)
    assert resolver.folder_name_of(kept) == "tiny@1.0.0-original"
