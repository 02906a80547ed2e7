"""Concepts that lead nowhere, hold nothing or are named twice are told, with the path that may be meant."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from preflight.conftest import Check, make_clips, only
from wan_fixes.errors import NothingUsableError, UserError
from wan_fixes.preflight import check_config, corrected, refusal
from wan_fixes.settings import Settings


@pytest.mark.parametrize("concepts", [[], [{"path": "clips", "enabled": False}], [1, None]])
def test_nothing_to_train_on_is_an_error(check: Check, concepts: Any) -> None:
    assert only(check(concepts=concepts), "concept_list", "error").field == "concepts"


@pytest.mark.parametrize("concepts", [{}, "clips", 7, True])
def test_concepts_that_are_no_list_are_an_error(check: Check, concepts: Any) -> None:
    assert "not a list" in only(check(concepts=concepts), "concept_list", "error").what


def test_a_misspelt_folder_is_an_error_with_its_neighbour_and_is_not_corrected_unasked(
    check: Check, tmp_path: Path
) -> None:
    found = only(check(concepts=[{"path": "clipz"}]), "concept_folders", "error")
    assert found.fix == f"did you mean {tmp_path / 'clips'}?" and found.correction is None


def test_a_folder_on_another_drive_or_home_is_found_by_its_last_parts(check: Check, tmp_path: Path) -> None:
    make_clips(tmp_path / "new home" / "videos" / "cats")
    lost = tmp_path / "old home" / "of somebody" / "videos" / "cats"
    found = only(check(concepts=[{"path": str(lost)}]), "concept_folders", "error")
    assert str(tmp_path / "new home" / "videos" / "cats") in found.fix


@pytest.mark.parametrize("text", ['"clips"', " clips ", "'clips'\n", "\u201cclips\u201d"])
def test_what_was_pasted_around_a_path_is_taken_off(check: Check, config: dict[str, Any], text: str) -> None:
    concepts = [{"path": text}]
    found = only(check(concepts=concepts), "concept_folders", "error")
    assert corrected({**config, "concepts": concepts}, [found])["concepts"] == [{"path": "clips"}]


@pytest.mark.skipif(os.name == "nt", reason="there a backslash separates")
def test_windows_separators_are_turned_where_they_lead_somewhere(check: Check, tmp_path: Path) -> None:
    make_clips(tmp_path / "data" / "cats")
    found = only(check(concepts=[{"path": "data\\cats"}]), "concept_folders", "error")
    assert found.correction is not None and found.correction.value == "data/cats"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that tells cases apart")
def test_a_path_of_another_case_is_corrected(check: Check, tmp_path: Path) -> None:
    found = only(check(concepts=[{"path": "CLIPS"}]), "concept_folders", "error")
    assert found.correction is not None and found.correction.value == str(tmp_path / "clips")


@pytest.mark.parametrize("path", [None, "", 3, [], {}])
def test_a_concept_without_a_path_is_an_error(check: Check, path: Any) -> None:
    found = only(check(concepts=[{"path": "clips"}, {"path": path}]), "concept_folders", "error")
    assert found.field == "concepts.1.path"


def test_a_concept_that_is_a_file_is_told_its_folder(check: Check, tmp_path: Path) -> None:
    found = only(check(concepts=[{"path": "clips/00.mp4"}]), "concept_folders", "error")
    assert str(tmp_path / "clips") in found.fix


def test_an_empty_concept_beside_others_is_a_warning_and_names_what_it_holds(check: Check, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.gif", "b.gif", "c.txt"):
        (folder / name).write_bytes(b"")
    found = only(check(concepts=[{"path": "clips"}, {"path": "pictures"}]), "empty_concepts", "warning")
    assert "2 .gif, 1 .txt" in found.why


def test_nothing_but_empty_concepts_is_an_error_of_its_own_kind(check: Check, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = check(concepts=[{"path": "empty"}])
    only(found, "empty_concepts", "error")
    assert isinstance(refusal(found), NothingUsableError)
    both = refusal(check(concepts=[{"path": "empty"}], frames=32))
    assert type(both) is UserError and "frames" in both.reason and "empty" in both.reason


def test_clips_in_subfolders_are_proposed_and_taken_in_by_the_correction(
    check: Check, config: dict[str, Any], tmp_path: Path
) -> None:
    make_clips(tmp_path / "data" / "cats")
    concepts = [{"path": "data"}]
    found = only(check(concepts=concepts), "empty_concepts", "error")
    assert "cats" in found.fix
    assert check(**corrected({**config, "concepts": concepts}, [found])) == []


def test_a_folder_that_is_named_twice_is_a_warning_unless_it_is_taken_differently(check: Check) -> None:
    again = {"path": "clips/."}
    assert only(check(concepts=[{"path": "clips"}, again]), "repeated_folders", "warning").field == "concepts.1.path"
    larger = {**again, "image": {"enable_resolution_override": True, "resolution_override": "640"}}
    assert check(concepts=[{"path": "clips"}, larger]) == []


def test_a_folder_within_another_is_a_warning_where_that_one_takes_subfolders(check: Check, tmp_path: Path) -> None:
    make_clips(tmp_path / "clips" / "more")
    concepts = [{"path": "clips/more"}, {"path": "clips", "include_subdirectories": True}]
    only(check(concepts=concepts), "repeated_folders", "warning")
    concepts[1]["include_subdirectories"] = False
    assert check(concepts=concepts) == []


def test_validation_on_what_is_trained_is_a_warning_and_unused_validation_is_not_looked_at(check: Check) -> None:
    concepts = [{"path": "clips"}, {"path": "clips", "type": "VALIDATION"}]
    assert "validation is of no use" in only(check(concepts=concepts, validation=True), "repeated_folders").why
    concepts[1]["path"] = "gone"
    assert check(concepts=concepts) == []


def test_no_caption_at_all_is_a_warning_and_single_ones_are_left_to_the_clips(
    check: Check, config: dict[str, Any], tmp_path: Path
) -> None:
    make_clips(tmp_path / "mute", captions=False)
    concepts = [{"path": "mute"}]
    assert "empty prompt" in only(check(concepts=concepts), "captions", "warning").why
    skipping = Settings(missing_captions="skip")
    found = check_config({**config, "concepts": concepts}, base=tmp_path, settings=skipping)
    assert only(found, "captions", "error").field == "concepts.0.text.prompt_source"
    assert check(concepts=[{"path": "mute", "text": {"prompt_source": "filename"}}]) == []
    (tmp_path / "mute" / "03.txt").write_text("one", encoding="utf-8")
    assert check(concepts=concepts) == []


def test_a_prompt_file_has_to_be_there(
    check: Check, check_standalone: Check, config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a cat", encoding="utf-8")
    text = {"prompt_source": "concept", "prompt_path": "prompts.txt"}
    assert check(concepts=[{"path": "clips", "text": text}]) == []
    for name in ("prompt.txt", ""):
        text["prompt_path"] = name
        concepts = [{"path": "clips", "text": text}]
        found = only(check(concepts=concepts), "captions", "warning")
        assert "empty prompt" in found.why and found.field == "concepts.0.text.prompt_path"
        only(check_standalone(concepts=concepts), "captions", "error")  # which does not read such a concept
        skipping = Settings(missing_captions="skip")
        only(check_config({**config, "concepts": concepts}, base=tmp_path, settings=skipping), "captions", "error")
        both = [{"path": "clips", "name": "another", "image": {}}, *concepts]
        only(check_config({**config, "concepts": both}, base=tmp_path, settings=skipping), "captions", "warning")
        assert "prompts.txt" in found.fix or not name


def test_one_concept_without_captions_stops_nothing_beside_another(config: dict[str, Any], tmp_path: Path) -> None:
    make_clips(tmp_path / "mute", captions=False)
    concepts = [{"path": "clips"}, {"path": "mute"}]
    skipping = Settings(missing_captions="skip")
    found = check_config({**config, "concepts": concepts}, base=tmp_path, settings=skipping)
    assert "left out" in only(found, "captions", "warning").why
    only(check_config({**config, "concepts": concepts[1:]}, base=tmp_path, settings=skipping), "captions", "error")
    stock = Settings(missing_captions="skip", validate_pipelines=False)  # of which OneTrainer's pipeline knows nothing
    found = check_config({**config, "concepts": concepts[1:]}, base=tmp_path, settings=stock)
    assert "empty prompt" in only(found, "captions", "warning").why


def test_a_caption_file_is_one_in_any_case(check: Check, tmp_path: Path) -> None:
    make_clips(tmp_path / "loud", captions=False)
    (tmp_path / "loud" / "00.TXT").write_text("a caption", encoding="utf-8")
    assert check(concepts=[{"path": "loud"}]) == []


def test_a_dataset_of_the_hub_is_fetched_by_onetrainer(check: Check, check_standalone: Check, tmp_path: Path) -> None:
    concepts = [{"path": "owner/dataset"}]
    assert "hub" in only(check(concepts=concepts), "concept_folders", "warning").why
    only(check_standalone(concepts=concepts), "concept_folders", "error")
    make_clips(tmp_path / "owners" / "dataset")
    assert str(tmp_path / "owners" / "dataset") in only(check(concepts=concepts), "concept_folders", "warning").fix
    (tmp_path / "owner").mkdir()
    only(check(concepts=concepts), "concept_folders", "error")


def test_validation_is_nothing_that_the_standalone_host_looks_at(check: Check, check_standalone: Check) -> None:
    concepts = [{"path": "clips"}, {"path": "gone", "type": "VALIDATION"}]
    only(check(concepts=concepts, validation=True), "concept_folders", "error")
    assert check_standalone(concepts=concepts, validation=True) == []


def test_what_onetrainer_takes_instead_of_a_number_is_a_warning(check: Check, tmp_path: Path) -> None:
    only(check(concepts=[{"path": "clips", "loss_weight": -1}]), "concept_numbers", "warning")
    (tmp_path / "concepts.json").write_text('[{"path": "clips", "balancing": "often"}]', encoding="utf-8")
    found = check(concepts=None, concept_file_name="concepts.json")
    only(found, "concept_numbers", "warning")  # it counts as not set


def test_a_concept_file_in_the_systems_own_encoding_is_read_as_onetrainer_reads_it(
    check: Check, check_standalone: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clips(tmp_path / "Vögel")
    (tmp_path / "concepts.json").write_bytes('[{"path": "Vögel"}]'.encode("cp1252"))
    of_file = {"concepts": None, "concept_file_name": "concepts.json"}
    monkeypatch.setattr("locale.getpreferredencoding", lambda _=True: "cp1252")
    assert check(**of_file) == []
    only(check_standalone(**of_file), "concept_list", "error")


def test_many_concepts_are_compared_fast(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"c{number}" for number in range(30)]
    for name in names:
        make_clips(tmp_path / name, count=1)
    asked: list[Any] = []
    real = os.path.realpath
    monkeypatch.setattr("os.path.realpath", lambda path, **more: asked.append(path) or real(path, **more))
    assert check(concepts=[{"path": name} for name in names], learning_rate_warmup_steps=0) == []
    assert len([path for path in asked if Path(path).name in names]) <= len(names)


@pytest.mark.parametrize("name", ["balancing", "loss_weight", "image_variations", "text_variations"])
@pytest.mark.parametrize("value", [-1, "often", [], float("inf")])
def test_numbers_of_a_concept_are_numbers(check_standalone: Check, name: str, value: Any) -> None:
    findings = check_standalone(concepts=[{"path": "clips", name: value}])
    assert [found.field for found in findings if found.severity == "error"] == [f"concepts.0.{name}"]


def test_concepts_of_a_file_are_checked_and_named_with_it(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "concepts.json"
    file.write_text(json.dumps([{"path": "clips"}, {"path": '"clips"'}]), encoding="utf-8")
    found = only(check(concepts=None, concept_file_name="concepts.json"), "concept_folders", "error")
    assert "in concepts.json" in found.what and found.correction is None  # that file is not written anew


@pytest.mark.parametrize("content", [b"{", b"[" * 200_000, b"\xff\xfe", b"{}", b'"text"', b"[]"])
def test_a_concept_file_that_cannot_be_used_is_an_error(check: Check, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "concepts.json").write_bytes(content)
    only(check(concepts=None, concept_file_name="concepts.json"), "concept_list", "error")


def test_a_concept_file_that_is_missing_is_told_with_its_neighbour(check: Check, tmp_path: Path) -> None:
    (tmp_path / "concepts.json").write_text('[{"path": "clips"}]', encoding="utf-8")
    found = only(check(concepts=None, concept_file_name="concept.json"), "concept_list", "error")
    assert str(tmp_path / "concepts.json") in found.fix
    found = only(check(concepts=None, concept_file_name=" concepts.json"), "concept_list", "error")
    assert found.correction is not None and found.correction.value == "concepts.json"


def test_a_cache_that_came_from_elsewhere_needs_no_clips(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan_fixes.preflight.training_data.was_carried", lambda folder: folder == tmp_path / "cache")
    assert check(concepts=[{"path": "gone"}]) == []
    only(check(concepts=[{"path": "gone"}], cache_dir="other"), "concept_folders", "error")


def test_paths_are_looked_up_beside_the_preset_first(config: dict[str, Any], tmp_path: Path) -> None:
    working = tmp_path / "elsewhere"
    working.mkdir()
    assert check_config(config, base=working, beside=tmp_path) == []
    rules = [found.rule for found in check_config(config, base=working)]
    assert rules == ["base_model", "concept_folders"]
