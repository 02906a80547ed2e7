"""`wan report`: a run as one page, in the workspace or in a file that is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.health import RUN_DATABASE_NAME, RunDatabase


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    with RunDatabase(folder / RUN_DATABASE_NAME) as database:
        with database.start_run("train") as run:
            run.sample("/clips/bad.mp4", "skipped", module="media", reason="it is torn", fix="copy it")
        database.start_run("train").finish("failed")
    return folder


def test_the_last_run_is_reported_in_its_workspace(wan: Any, workspace: Path) -> None:
    result = wan("report", workspace)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "report-2.html" in result.stderr.replace("\n", "")
    assert "failed" in (workspace / "report-2.html").read_text(encoding="utf-8")


def test_another_run_and_another_file_can_be_named(wan: Any, workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert wan("report", workspace, "--run", "1", "--html", file).exit_code == 0
    assert "it is torn" in file.read_text(encoding="utf-8")
    assert list(workspace.glob("*.html")) == []


def test_a_file_of_the_users_is_not_replaced(wan: Any, workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("mine", encoding="utf-8")
    result = wan("report", workspace, "--html", file)
    assert result.exit_code == 2
    assert "name another file" in result.stderr
    assert file.read_text(encoding="utf-8") == "mine"


def test_the_database_is_only_read(wan: Any, workspace: Path) -> None:
    before = (workspace / RUN_DATABASE_NAME).read_bytes()
    assert wan("report", workspace).exit_code == 0
    assert (workspace / RUN_DATABASE_NAME).read_bytes() == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere, Windows has other rights")
def test_a_workspace_that_cannot_be_written_is_named(wan: Any, workspace: Path) -> None:
    workspace.chmod(0o500)
    try:
        assert wan("report", workspace).exit_code == 2
    finally:
        workspace.chmod(0o700)
