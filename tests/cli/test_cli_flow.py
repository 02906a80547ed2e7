"""`wan flow`: the data flow of a run as a page, a picture, or text for GitHub."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.health import RUN_DATABASE_NAME, RunDatabase

MODULES = [
    {"at": 0, "name": "ValidatedCollectPaths", "part": "validated", "inputs": [], "outputs": ["image_path"]},
    {"at": 1, "name": "[red]Loader<b>", "part": "guarded", "inputs": ["image_path"], "outputs": ["image"]},
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with two runs, of which the first has recorded its pipeline."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    with RunDatabase(folder / RUN_DATABASE_NAME) as database:
        with database.start_run("train") as run:
            run.state("pipeline training", MODULES)
            run.counters({"[red]Loader<b>.calls": 5.0, "[red]Loader<b>.seconds": 1.5})
        database.start_run("check").finish()
    return folder


def test_a_page_is_written_to_the_workspace_and_named(wan: Any, workspace: Path) -> None:
    result = wan("flow", workspace, "--run", "1")
    assert result.exit_code == 0
    assert result.stdout == ""
    page = workspace / "flow-1.html"
    assert "flow-1.html" in result.stderr.replace("\n", "")
    assert "[red]Loader&lt;b&gt;" in page.read_text(encoding="utf-8")


def test_a_picture_goes_to_standard_output_and_is_whole(wan: Any, workspace: Path) -> None:
    result = wan("flow", workspace, "--run", "1", "--format", "svg")
    assert result.exit_code == 0
    texts = [element.text for element in ElementTree.fromstring(result.stdout.partition("\n")[2]).iter()]
    assert "[red]Loader<b>" in texts
    assert any(text and "5 items · 1.5 s" in text for text in texts)
    assert list(workspace.glob("*.svg")) == [] and result.stdout.isascii()


def test_text_for_github_goes_to_standard_output(wan: Any, workspace: Path) -> None:
    result = wan("flow", workspace, "--run", "1", "--format", "mermaid")
    assert result.exit_code == 0
    assert "flowchart TD" in result.stdout
    assert '  m0 -->|"image_path"| m1' in result.stdout
    assert "#60;b#62;" in result.stdout and "<b>" not in result.stdout and result.stdout.isascii()


@pytest.mark.parametrize("kind", ["html", "svg", "mermaid"])
def test_any_of_them_goes_to_a_file_that_is_named_and_replaces_only_its_own(
    wan: Any, workspace: Path, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "flow.out"
    for _ in range(2):
        result = wan("flow", workspace, "--run", "1", "--format", kind, "--output", file)
        assert (result.exit_code, result.stdout) == (0, "")
    assert "Loader" in file.read_text(encoding="utf-8")
    file.write_text("mine", encoding="utf-8")
    assert wan("flow", workspace, "--run", "1", "--format", kind, "--output", file).exit_code == 2
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_run_without_a_pipeline_says_so(wan: Any, workspace: Path) -> None:
    result = wan("flow", workspace)
    assert result.exit_code == 2
    assert "run 2 recorded no pipeline" in result.stderr.replace("\n", " ")
    assert "--run" in result.stderr


def test_a_run_that_is_not_there_is_named_with_those_that_are(wan: Any, workspace: Path) -> None:
    result = wan("flow", workspace, "--run", "9")
    assert result.exit_code == 2
    assert "there is no run 9" in result.stderr
    assert "2, 1" in result.stderr


def test_a_format_that_is_not_known_is_refused(wan: Any, workspace: Path) -> None:
    assert wan("flow", workspace, "--format", "png").exit_code == 2


@pytest.mark.parametrize("command", ["flow", "report"])
def test_runs_are_counted_from_1(wan: Any, workspace: Path, command: str) -> None:
    result = wan(command, workspace, "--run", "0")
    assert result.exit_code == 2 and "Invalid value for '--run'" in result.stderr
