"""`wan discover`: the folders with training data, and a concepts file that both hosts read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.preflight.near_paths import moved_path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "my data"
    for name in ("a.mp4", "a.txt", "b.MKV", "deep/er/c.png", "deep/er/c.txt", "deep/er/c-masklabel.png", "notes/x.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_folders_with_samples_are_listed_and_written_as_concepts(wan: Any, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "concepts.json"
    result = wan("discover", data, "--output", target, "--json")
    assert result.exit_code == 0
    deep = str(Path("deep", "er"))
    assert json.loads(result.stdout)["folders"] == [
        {"path": str(data / deep), "name": deep, "clips": 0, "images": 1, "without_caption": 0},
        {"path": str(data), "name": "my data", "clips": 2, "images": 0, "without_caption": 1},
    ]
    concepts = json.loads(target.read_text(encoding="utf-8"))
    assert [(concept["name"], concept["path"]) for concept in concepts] == [
        (deep, str(data / deep)),
        ("my data", str(data)),
    ]


def test_what_is_written_is_read_by_check(wan: Any, clips: Path, write_preset: Any, tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    assert wan("discover", clips, "--output", target).exit_code == 0
    preset = write_preset(concepts=None, concept_file_name=str(target))
    answer = json.loads(wan("check", preset, "--json").stdout)
    assert [(file["name"], file["status"]) for file in answer["files"]] == [("good.mp4", "good")]


def test_a_file_that_is_there_is_never_replaced(wan: Any, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "concepts.json"
    target.write_text("mine", encoding="utf-8")
    result = wan("discover", data, "--output", target)
    assert result.exit_code == 2
    assert "nothing of yours is replaced" in result.stderr
    assert target.read_text(encoding="utf-8") == "mine"


def test_nothing_to_train_on_exits_with_3_and_no_folder_with_2(wan: Any, tmp_path: Path) -> None:
    target = tmp_path / "concepts.json"
    (tmp_path / "empty").mkdir()
    assert wan("discover", tmp_path / "empty", "--output", target).exit_code == 3
    assert not target.exists()
    result = wan("discover", tmp_path / "gone")
    assert result.exit_code == 2 and "there is no such folder" in result.stderr


def test_a_concept_whose_folder_has_moved_is_proposed(wan: Any, clips: Path, write_preset: Any, tmp_path: Path) -> None:
    preset = write_preset(clips)
    (tmp_path / "archive").mkdir()
    clips.rename(tmp_path / "archive" / "clips")
    result = wan("check", preset)
    assert result.exit_code == 2
    assert f"did you mean {tmp_path / 'archive' / 'clips'}?" in result.stderr.replace("\n", "")


def test_of_a_moved_path_as_many_parts_as_possible_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "old" / "b").mkdir(parents=True)
    (tmp_path / "new" / "a" / "b").mkdir(parents=True)
    assert moved_path(tmp_path / "a" / "b") == tmp_path / "new" / "a" / "b"
    assert moved_path(tmp_path / "nowhere" / "to be found") is None
