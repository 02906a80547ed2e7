"""What can be done from the tab says what it did, can be stopped, never raises, and never happens twice at once."""

from __future__ import annotations

import json
import logging
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.health import RunDatabase
from wan_fixes.settings import Settings
from wan_fixes.store import ContentIds, Quarantine, SampleStore, make_key
from wan_fixes.ui.actions import Actions
from wan_fixes.ui.task import MOST_LINES, Task

SECONDS = 60


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings = tmp_path / "settings.json"
    settings.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("WAN_FIXES_SETTINGS", str(settings))
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return settings


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with one good clip of 24 frames at 16 fps, and two that are none."""
    from clips import write_clip
    from painted import paint_frame

    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "good.mp4", (paint_frame(n, width=64, height=48) for n in range(24)))
    (folder / "good.txt").write_text("numbers", encoding="utf-8")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "[red]text.mp4").write_text("not a video", encoding="utf-8")
    return folder


def config_of(folder: Path, **fields: Any) -> dict[str, Any]:
    """As OneTrainer gives it, as far as it counts."""
    return {
        "model_type": "WAN_2_1_T2V_1_3B",
        "training_method": "LORA",
        "base_model_name": "t2v-1.3B",
        "concepts": [{"name": "cats", "path": str(folder)}],
        "cache_dir": "cache",
        "workspace_dir": "workspace",
        "resolution": "64x48",
        "frames": "9",
    } | fields


def actions(config: dict[str, Any] | Callable[[], Any], database: Path | None = None) -> Actions:
    return Actions(config if callable(config) else lambda: config, lambda: database)


class Held(Actions):
    """Its tasks begin, and go on once they may."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(lambda: config, lambda: None)
        self.is_begun, self.may_go_on = threading.Event(), threading.Event()

    def _start(self, title: str, work: Callable[[Task, Any, Any], None], *, reads_config: bool = True) -> Task:
        def held(task: Task, config: Any, database: Any) -> None:
            self.is_begun.set()
            assert self.may_go_on.wait(SECONDS)
            work(task, config, database)

        return super()._start(title, held, reads_config=reads_config)


def ended(task: Task) -> Task:
    assert task.wait(SECONDS), "it does not end"
    return task


# Tasks


def test_a_task_tells_how_far_it_is_and_what_came_of_it() -> None:
    may_go_on, is_there = threading.Event(), threading.Event()

    def work(task: Task) -> None:
        task.say("one")
        task.progress(1, 2)
        is_there.set()
        assert may_go_on.wait(SECONDS)
        task.progress(2, 2)
        task.say("two")

    task = Task("a task").begin(work)
    assert is_there.wait(SECONDS)
    assert (task.state, task.done, task.total, task.lines) == ("running", 1, 2, ("one",))
    may_go_on.set()
    ended(task)
    assert (task.state, task.done, task.total, task.lines) == ("done", 2, 2, ("one", "two"))


def test_a_task_that_is_stopped_ends_at_its_next_step() -> None:
    is_there, was_stopped = threading.Event(), threading.Event()

    def work(task: Task) -> None:
        task.progress(1, 9)
        is_there.set()
        assert was_stopped.wait(SECONDS)
        task.progress(2, 9)
        raise AssertionError("it goes on")

    task = Task("a task").begin(work)
    assert is_there.wait(SECONDS)
    task.stop()
    was_stopped.set()
    ended(task)
    assert (task.state, task.lines[-1]) == ("stopped", "stopped before it was complete")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("no", path="a.mp4", reason="because", fix="do this"), "no: a.mp4: because (do this)"),
        (ZeroDivisionError("division"), "an unexpected error: ZeroDivisionError: division (please report it"),
    ],
)
def test_what_goes_wrong_is_a_line_and_never_raised(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def work(task: Task) -> None:
        raise error

    with caplog.at_level(logging.ERROR):
        task = Task("a task").run(work)
    assert task.state == "failed" and words in task.lines[0]
    assert bool(caplog.records) == isinstance(error, ZeroDivisionError)


def test_there_are_never_too_many_lines_and_the_first_stay() -> None:
    task = Task("a task").run(lambda running: [running.say(str(n)) for n in range(MOST_LINES + 7)])
    assert len(task.lines) == MOST_LINES + 1
    assert (task.lines[0], task.lines[-1]) == ("0", "… and 7 more")


@given(st.text())
def test_every_line_is_one_line_of_plain_text_without_secrets(text: str) -> None:
    task = Task("a task")
    task.say(f"{text} hf_abcdefghijklmnop")
    assert len(task.lines) == 1
    assert not {unicodedata.category(character) for character in task.lines[0]} & {"Cc", "Cs", "Zl", "Zp"}
    assert "hf_abc" not in task.lines[0]


# One at a time


def test_a_second_task_is_refused_while_one_is_running(clips: Path) -> None:
    both = Held(config_of(clips))
    first = both.verify_cache()
    assert both.is_begun.wait(SECONDS)
    second = both.check_dataset()
    assert second.state == "failed"
    assert "Verification of the cache is still going on" in second.lines[0]
    assert both.current is first and first.state == "running"
    both.may_go_on.set()
    ended(first)
    third = ended(both.check_dataset())
    assert third.state == "done" and both.current is third


def test_a_configuration_that_cannot_be_read_is_a_failed_task(caplog: pytest.LogCaptureFixture) -> None:
    task = ended(actions(lambda: 1 / 0).check_dataset())
    assert task.state == "failed" and "ZeroDivisionError" in task.lines[0]


# The configuration


def test_the_configuration_is_checked_with_totals_first(clips: Path) -> None:
    task = ended(actions(config_of(clips, frames="10", lora_rank=0)).check_configuration())
    assert task.state == "done", task.lines
    assert "error" in task.lines[0]
    assert int(task.lines[0].split()[0]) == len([line for line in task.lines[1:] if line.startswith("error: ")]) >= 2
    assert any(line.startswith("error: frames: ") for line in task.lines)


# The dataset


def test_each_bad_file_is_named_with_reason_and_fix_after_the_totals(clips: Path) -> None:
    task = ended(actions(config_of(clips)).check_dataset())
    assert task.state == "done", task.lines
    assert task.lines[0] == "3 files for samples of 9 frames at 16 fps: 1 good, 0 warning, 2 rejected"
    assert [line.split(": ")[:2] for line in task.lines[1:]] == [
        ["rejected", "[red]text.mp4"],
        ["rejected", "empty.mp4"],
    ]
    assert "the file is empty" in task.lines[2] and task.lines[2].endswith(")")
    assert (task.done, task.total) == (3, 3)


def test_the_verdicts_are_those_of_the_command(clips: Path, tmp_path: Path) -> None:
    from wan_fixes.hosts.standalone.check import check_files
    from wan_fixes.hosts.standalone.dataset import read_dataset

    config = config_of(clips, frames="81")
    verdicts = check_files(read_dataset(config, tmp_path), Settings())
    task = ended(actions(config).check_dataset())
    assert [line for line in task.lines[1:] if line.startswith("rejected")] == [
        f"rejected: {verdict.name}: {verdict.reason} ({verdict.fix})" for verdict in verdicts
    ]
    assert "concept cats has no file that can be used" in task.lines[1]


def test_a_model_that_is_no_wan_model_has_no_rule_of_frames(clips: Path) -> None:
    task = ended(actions(config_of(clips, model_type="HUNYUAN_VIDEO_VIDEO", frames="10000")).check_dataset())
    assert task.lines[0] == "3 files: 1 good, 0 warning, 2 rejected"


def test_concepts_may_lie_in_the_file_that_is_named_relative_to_the_working_folder(clips: Path, tmp_path: Path) -> None:
    concepts = [
        {"name": "cats", "path": "clips"},
        {"name": "prior", "path": "clips", "type": "PRIOR_PREDICTION"},
        {"name": "held back", "path": "clips", "type": "VALIDATION"},
        {"name": "off", "path": "nowhere", "enabled": False},
    ]
    (tmp_path / "concepts.json").write_text(json.dumps(concepts), encoding="utf-8")
    config = config_of(clips, concepts=None, concept_file_name="concepts.json")
    assert ended(actions(config).check_dataset()).lines[0].startswith("6 files ")
    task = ended(actions(config | {"validation": True}).check_dataset())
    assert task.lines[0].startswith("9 files ")
    assert "rejected: held back: empty.mp4: " in "\n".join(task.lines)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"concepts": None, "concept_file_name": "gone.json"}, "concept file does not exist"),
        ({"concepts": []}, "there is nothing to train on"),
        ({"concepts": [{"path": "/no/such/folder"}]}, "concept folder does not exist"),
        ({"concepts": 7}, "concepts cannot be used"),
        ({"resolution": "large"}, '"resolution" cannot be used'),
        ({"frames": "many"}, '"frames" cannot be used'),
    ],
)
def test_a_dataset_that_cannot_be_read_is_said(clips: Path, fields: dict[str, Any], words: str) -> None:
    task = ended(actions(config_of(clips, **fields)).check_dataset())
    assert task.state == "failed" and words in task.lines[0]


def test_checking_a_dataset_can_be_stopped(clips: Path) -> None:
    held = Held(config_of(clips))
    task = held.check_dataset()
    assert held.is_begun.wait(SECONDS)
    task.stop()
    held.may_go_on.set()
    assert ended(task).state == "stopped"


# The cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two stores, three entries in all."""
    folder = tmp_path / "cache"
    for name, entries in (("image", 2), ("text", 1)):
        with SampleStore(folder / name / "samples") as store:
            for number in range(entries):
                store.put(make_key({"number": number}), {"latent": torch.full((4, 250), float(number))})
    return folder


def damage_one(cache: Path) -> Path:
    key = make_key({"number": 0})
    path = cache / "image" / "samples" / "v1" / "entries" / key[:2] / f"{key}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return path


def test_a_cache_is_verified_and_repaired(cache: Path, clips: Path, tmp_path: Path) -> None:
    both = actions(config_of(clips))
    task = ended(both.verify_cache())
    assert (task.state, task.lines) == ("done", ("3 entries in 2 caches: 0 problems",))
    assert (task.done, task.total) == (3, 3)
    path = damage_one(cache)
    task = ended(both.verify_cache())
    assert task.lines[0] == "3 entries in 2 caches: 1 problem"
    assert str(path) in task.lines[-1] and path.is_file()
    task = ended(both.repair_cache())
    assert task.state == "done", task.lines
    assert f"{cache / 'image' / 'samples'}: 1 entry set aside, index made anew with 1 entry" in task.lines
    assert not path.exists()
    assert ended(both.verify_cache()).lines == ("2 entries in 2 caches: 0 problems",)


@pytest.mark.parametrize("cache_dir", ["nothing here", "", None, 7])
def test_without_a_cache_nothing_is_made(clips: Path, tmp_path: Path, cache_dir: Any) -> None:
    before = sorted(tmp_path.iterdir())
    for work in ("verify_cache", "repair_cache"):
        task = ended(getattr(actions(config_of(clips, cache_dir=cache_dir)), work)())
        assert task.state == "failed" and "there is no cache" in task.lines[0]
    assert sorted(tmp_path.iterdir()) == before


def test_a_cache_that_is_trained_on_is_not_repaired(cache: Path, clips: Path, tmp_path: Path) -> None:
    path = damage_one(cache)
    runs = tmp_path / "workspace" / "runs.sqlite"
    with RunDatabase(runs) as database:
        other = database.start_run("train", {"cache_dir": str(tmp_path / "another")})
        both = actions(config_of(clips), runs)
        run = database.start_run("train", {"cache_dir": str(cache)})
        database.start_run("check", {"cache_dir": str(tmp_path / "another")})  # later, and beside it
        database.flush()
        task = ended(both.repair_cache())
        assert task.state == "failed" and f"run {run.id} (train) is at work on it" in task.lines[0]
        assert path.is_file()
        assert ended(both.verify_cache()).state == "done"
        run.finish()
        assert other.id and ended(both.repair_cache()).state == "done"
    assert not path.exists()


def test_a_repair_that_is_stopped_while_it_reads_has_changed_nothing(
    cache: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = damage_one(cache)
    both = actions(config_of(clips))
    real = Task.progress

    def stopped_at_the_first_entry(task: Task, done: int, total: int) -> None:
        if done:
            task.stop()
        real(task, done, total)

    monkeypatch.setattr(Task, "progress", stopped_at_the_first_entry)
    assert ended(both.repair_cache()).state == "stopped"
    assert path.is_file()


# The report


def test_a_report_is_written_and_replaces_no_file_but_a_report(clips: Path, tmp_path: Path) -> None:
    runs, page = tmp_path / "runs.sqlite", tmp_path / "report.html"
    with RunDatabase(runs) as database, database.start_run("train", config_of(clips)) as run:
        run.sample("<b>a.mp4", "skipped", "Loader", "truncated")
    both = actions(lambda: 1 / 0, runs)  # it needs no configuration
    task = ended(both.export_report(page))
    assert (task.state, task.lines) == ("done", (f"written: {page}",))
    assert "<b>a.mp4" not in page.read_text(encoding="utf-8")
    assert ended(both.export_report(page)).state == "done"
    page.write_text("mine", encoding="utf-8")
    task = ended(both.export_report(page))
    assert task.state == "failed" and page.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("database", [None, Path("nowhere") / "runs.sqlite"])
def test_without_a_run_there_is_no_report(clips: Path, tmp_path: Path, database: Path | None) -> None:
    task = ended(actions(config_of(clips), database).export_report(tmp_path / "report.html"))
    assert task.state == "failed" and "run" in task.lines[0]
    assert not (tmp_path / "report.html").exists()


# Another try


def test_a_file_is_taken_off_the_quarantine_and_looked_at(clips: Path, tmp_path: Path) -> None:
    good, bad, elsewhere = clips / "good.mp4", clips / "empty.mp4", tmp_path / "gone.mp4"
    quarantine = Quarantine(tmp_path / "cache" / "quarantine.sqlite")
    ids = ContentIds(tmp_path / "cache" / "files.sqlite")
    for path in (good, bad):
        quarantine.add(path, ids.of(str(path)), "it was damaged")
    quarantine.add(tmp_path / "other.mp4", "7", "stays")
    task = ended(actions(config_of(clips)).try_again([str(good), str(bad), str(elsewhere), str(bad)]))
    assert task.state == "done", task.lines
    assert task.lines[0] == "good.mp4: now good: used from the next start"
    assert task.lines[1].startswith("empty.mp4: still: the file is empty (")
    assert task.lines[2].startswith("gone.mp4: still: ")
    assert len(task.lines) == 3 and (task.done, task.total) == (3, 3)
    assert [entry.reason for entry in quarantine.entries()] == ["stays"]
    quarantine.close()


def test_another_try_makes_no_quarantine_and_needs_no_sound_configuration(clips: Path, tmp_path: Path) -> None:
    task = ended(actions({"cache_dir": "cache", "concepts": 7}).try_again([str(clips / "good.mp4")]))
    assert task.lines == ("good.mp4: now good: used from the next start",)
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_now_good_and_too_short_is_still_left_out(clips: Path) -> None:
    task = ended(actions(config_of(clips, frames="81")).try_again([str(clips / "good.mp4")]))
    assert task.lines[0].startswith("good.mp4: still: ") and "81" in task.lines[0]


# Folders


def test_the_folder_of_a_file_is_the_nearest_that_is_there(clips: Path, tmp_path: Path) -> None:
    both = actions({})
    assert both.folder_of(str(clips / "good.mp4")) == clips
    assert both.folder_of(str(clips / "gone" / "away" / "a.mp4")) == clips
    assert both.folder_of(str(clips / "good.mp4" / "a.mp4")) == clips
    assert both.folder_of("clips/a.mp4") == clips
    assert both.folder_of("a\0b/c.mp4") == tmp_path
