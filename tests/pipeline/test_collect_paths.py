"""From concepts to files: each once, in a fixed order, with a word for what is left out."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from wan_fixes.pipeline import ValidatedCollectPaths
from wan_fixes.pipeline.base import ENGINE, ConceptPipelineModule, SettingsPipelineModule

from .toys import build, events_of, samples_of

ARGUMENTS = {
    "concept_in_name": "concept",
    "path_in_name": "path",
    "include_subdirectories_in_name": "concept.include_subdirectories",
    "enabled_in_name": "enabled",
    "path_out_name": "image_path",
    "concept_out_name": "concept",
}
needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def concept(folder, *, enabled=True, recursive=True):
    return {"path": str(folder), "enabled": enabled, "include_subdirectories": recursive, "name": Path(folder).name}


def collect(collector, *concepts):
    """(path, concept) of every sample."""
    build(ConceptPipelineModule(list(concepts)), SettingsPipelineModule({}), collector).start_next_epoch()
    items = [collector.get_item(0, index) for index in range(collector.length())]
    return [(item["image_path"], item["concept"]) for item in items]


def ours(context, *, extensions=(".mp4", ".png"), include=None, exclude=("-masklabel", "-condlabel")):
    return ValidatedCollectPaths(
        **ARGUMENTS, extensions=extensions, include_postfix=include, exclude_postfix=list(exclude), context=context
    )


def names(found, folder):
    return [Path(path).relative_to(folder).as_posix() for path, _ in found]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "clips"
    for name in (
        "b.mp4", "a.MP4", "a.txt", "c.png", "c-masklabel.png", "c-condlabel.png", "notes.doc", "no_suffix",
        "sub/d.mp4", "sub/deeper/e.mp4", ".hidden/f.mp4", "Z.mp4", "ä.mp4", "with.dots.mp4",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_wanted_files_are_listed_in_order_each_with_its_concept(context, folder):
    one = concept(folder)
    found = collect(ours(context), one)
    assert names(found, folder) == [
        "Z.mp4", "a.MP4", "b.mp4", "c.png", "sub/d.mp4", "sub/deeper/e.mp4", "with.dots.mp4", "ä.mp4",
    ]  # fmt: skip
    assert all(given is one for _, given in found)
    assert all(isinstance(path, str) for path, _ in found)
    assert [event.facts for event in events_of(context, "paths_collected")] == [{"files": 8}]


def test_subfolders_only_where_the_concept_says_so(context, folder):
    found = collect(ours(context), concept(folder, recursive=False))
    assert names(found, folder) == ["Z.mp4", "a.MP4", "b.mp4", "c.png", "with.dots.mp4", "ä.mp4"]


def test_concepts_come_one_after_the_other_and_those_switched_off_not_at_all(context, folder):
    concepts = [concept(folder / "sub"), concept(folder, enabled=False), concept(folder, recursive=False)]
    found = collect(ours(context), *concepts)
    assert [given["name"] for _, given in found] == ["sub"] * 2 + ["clips"] * 6


def test_postfixes_choose_and_exclude(context, folder):
    found = collect(ours(context, include=["-masklabel", "c"], exclude=[]), concept(folder))
    assert names(found, folder) == ["c-masklabel.png", "c.png"]
    found = collect(ours(context, exclude=["s", "sub/d"]), concept(folder))
    assert names(found, folder) == [
        "Z.mp4", "a.MP4", "b.mp4", "c-condlabel.png", "c-masklabel.png", "c.png", "sub/deeper/e.mp4", "ä.mp4",
    ]  # fmt: skip


@pytest.mark.skipif(ENGINE != "mgds", reason="the stock class comes with mgds, which is not importable here")
@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize("include", [None, ["c", "label"]])
def test_of_an_ordinary_folder_it_lists_what_the_stock_module_lists(context, folder, recursive, include):
    stock = importlib.import_module("mgds.pipelineModules.CollectPaths").CollectPaths
    (folder / "sub/deeper/e.mp4").unlink()
    arguments = {"extensions": [".mp4", ".png"], "include_postfix": include, "exclude_postfix": ["-masklabel"]}
    one = concept(folder, recursive=recursive)
    expected = collect(stock(**ARGUMENTS, **arguments), one)
    found = collect(ValidatedCollectPaths(**ARGUMENTS, **arguments, context=context), one)
    assert sorted(found, key=lambda pair: pair[0]) == sorted(expected, key=lambda pair: pair[0])


@needs_links
def test_folders_that_link_to_one_another_are_entered_once(context, folder):
    """The stock module finds the same files dozens of times, or never ends."""
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "other").symlink_to(folder / "sub")
    found = collect(ours(context), concept(folder))
    assert len(names(found, folder)) == len(set(names(found, folder))) == 8


@needs_links
def test_a_link_that_leads_nowhere_is_named(context, folder):
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    found = collect(ours(context), concept(folder))
    assert "gone.mp4" not in names(found, folder)
    record = samples_of(context)[str(folder / "gone.mp4")]
    assert "a link to" in record.reason and "nowhere.mp4" in record.reason
    assert record.module == "ValidatedCollectPaths"


@needs_pipes
def test_a_pipe_is_named_and_never_opened(context, folder):
    os.mkfifo(folder / "pipe.mp4")
    os.mkfifo(folder / "pipe.txt")
    collect(ours(context), concept(folder))
    assert list(samples_of(context)) == [str(folder / "pipe.mp4")]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: None, "the concept's folder does not exist"),
        (lambda folder: folder.mkdir(), "the concept has no usable file"),
        (lambda folder: folder.write_bytes(b""), "the concept's folder does not exist"),
    ],
)
def test_a_concept_without_files_is_warned_of_and_the_others_are_used(context, folder, tmp_path, make, reason):
    other = tmp_path / "other"
    make(other)
    found = collect(ours(context), concept(other), concept(folder))
    assert len(found) == 8
    record = samples_of(context, "warning")[str(other)]
    assert record.reason == reason
    assert record.fix


def test_a_name_that_is_no_valid_text_is_listed(context, folder):
    try:
        (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    except (OSError, UnicodeError):
        pytest.skip("this file system holds valid names only")
    assert os.fsdecode(b"caf\xe9.mp4") in names(collect(ours(context), concept(folder)), folder)
