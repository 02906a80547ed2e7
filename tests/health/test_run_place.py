"""Where runs are recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from wan_fixes.health import RunDatabase, run_database_path, run_place


def test_a_local_workspace_holds_its_own_run_database(tmp_path: Path) -> None:
    assert run_database_path(tmp_path).parent == tmp_path


def test_a_workspace_on_a_network_drive_is_recorded_on_a_local_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "state"
    workspaces = tmp_path / "share" / "a", tmp_path / "share" / "b" / "a"
    monkeypatch.setattr(run_place, "network_file_system", lambda path: "nfs4" if "share" in Path(path).parts else None)
    monkeypatch.setattr(run_place.platformdirs, "user_state_dir", lambda *_, **__: str(local))

    first, second = (run_database_path(workspace) for workspace in workspaces)

    assert first != second, "two workspaces of one name must not share a database"
    assert first == run_database_path(workspaces[0]), "the next run must find it"
    assert local in first.parents
    with RunDatabase(first) as database, database.start_run("train") as run:
        run.event("note", "it can be written")
