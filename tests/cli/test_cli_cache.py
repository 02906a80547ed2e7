"""`wan cache`: what the caches hold, whether they are sound, what can go, and how they travel."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from painted import paint_frame

from wan_fixes.cli.tables import duration_text
from wan_fixes.health import RUN_DATABASE_NAME, RunDatabase
from wan_fixes.health.text import size_text
from wan_fixes.hosts.standalone import cache_build, read_preset
from wan_fixes.hosts.standalone.cache_build import epochs_until_all_variations
from wan_fixes.store import SampleStore, make_key
from wan_fixes.wan.lora import load_lora


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder as training leaves it: two stores, three entries in all."""
    folder = tmp_path / "cache"
    for name, entries in (("image", 2), ("text", 1)):
        with SampleStore(folder / name / "samples") as store:
            for number in range(entries):
                store.put(make_key({"number": number}), {"latent": torch.full((4, 250), float(number))})
    return folder


def test_every_store_and_the_total_are_shown(wan: Any, cache: Path) -> None:
    answer = json.loads(wan("cache", "stats", cache, "--json").stdout)
    assert [store["path"] for store in answer["stores"]] == [
        str(cache / kind / "samples") for kind in ("image", "text")
    ]
    assert [store["entries"] for store in answer["stores"]] == [2, 1]
    assert answer["total"]["entries"] == 3
    assert answer["total"]["bytes"] > 3 * 4000
    assert answer["total"]["corrupt"] == 0
    shown = wan("cache", "stats", cache)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-1].split("│")[1].strip() == "3"


def test_damaged_entries_are_counted(wan: Any, cache: Path) -> None:
    with SampleStore(cache / "text" / "samples") as store:
        store.discard(store.keys()[0], "on purpose")
    answer = json.loads(wan("cache", "stats", cache, "--json").stdout)
    assert answer["total"]["corrupt"] == 1
    assert answer["total"]["entries"] == 2


def test_a_cache_of_another_format_version_is_named(wan: Any, cache: Path) -> None:
    other = cache / "text" / "samples" / "v999"
    other.mkdir()
    result = wan("cache", "stats", cache)
    assert result.exit_code == 0
    assert str(other) in result.stderr
    assert "999" in result.stderr


def test_the_preset_will_do(wan: Any, cache: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps({"cache_dir": str(cache)}), encoding="utf-8")
    assert json.loads(wan("cache", "stats", preset, "--json").stdout)["total"]["entries"] == 3


def test_no_cache_is_a_usage_error_and_makes_none(wan: Any, tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    result = wan("cache", "stats", folder)
    assert result.exit_code == 2
    assert str(folder) in result.stderr
    assert list(folder.iterdir()) == []


def test_entries_are_counted_for_each_concept(wan: Any, cache: Path) -> None:
    for kind in ("image", "text"):
        with SampleStore(cache / kind / "samples") as store:
            store.note_needed("training", {store.keys()[0]: "[red]cats"}, replace=True)
    answer = json.loads(wan("cache", "stats", cache, "--json").stdout)
    [concept] = answer["concepts"]
    assert (concept["name"], concept["entries"]) == ("[red]cats", 2)
    assert [store["unneeded"]["entries"] for store in answer["stores"]] == [1, 0]
    shown = wan("cache", "stats", cache).stdout
    assert "[red]cats" in shown
    [row] = [line for line in shown.splitlines() if "needed by no latest start" in line]
    assert row.split("│")[1].strip() == "1"


# verify and repair


def entry_of(cache: Path, kind: str, number: int = 0) -> Path:
    key = make_key({"number": number})
    return cache / kind / "samples" / "v1" / "entries" / key[:2] / f"{key}.safetensors"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the entries and the quarantine."""
    return {str(path): path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_a_sound_cache_is_said_to_be_sound(wan: Any, cache: Path) -> None:
    result = wan("cache", "verify", cache)
    assert result.exit_code == 0, result.stdout
    assert "3 entries in 2 caches, 0 problems" in result.stdout


def test_verify_names_each_damaged_file_exits_with_1_and_changes_nothing(wan: Any, cache: Path) -> None:
    damage(entry_of(cache, "image"))
    entry_of(cache, "text").unlink()
    foreign = cache / "image" / "samples" / "v1" / "entries" / "notes.txt"
    foreign.write_text("mine", encoding="utf-8")
    before = contents(cache)
    result = wan("cache", "verify", cache, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["problems"] == 3
    [image, text] = [store["problems"] for store in answer["stores"]]
    assert {problem["path"]: problem["reason"] for problem in (*image, *text)} == {
        str(entry_of(cache, "image")): "its tensors do not match their checksum",
        str(foreign): "it was not written by this program",
        str(entry_of(cache, "text")): "its file is gone",
    }
    assert all(problem["fix"] for problem in (*image, *text))
    shown = wan("cache", "verify", cache)
    assert shown.exit_code == 1
    assert "wan cache repair" in shown.stdout and "3 problems" in shown.stdout
    assert contents(cache) == before and foreign.exists()


def test_a_damaged_index_is_a_problem_once(wan: Any, cache: Path) -> None:
    (cache / "text" / "samples" / "v1" / "index.sqlite").write_bytes(b"no database" * 1000)
    assert wan("cache", "verify", cache).exit_code == 1
    assert wan("cache", "verify", cache).exit_code == 0


def test_repair_sets_the_damaged_aside_and_keeps_the_rest(wan: Any, cache: Path) -> None:
    damaged = entry_of(cache, "image")
    damage(damaged)
    content = damaged.read_bytes()
    entry_of(cache, "text").unlink()
    foreign = cache / "image" / "samples" / "v1" / "entries" / "notes.txt"
    foreign.write_text("mine", encoding="utf-8")
    old_index = cache / "image" / "samples" / "v1" / "index.sqlite.set-aside-1"
    old_index.write_bytes(b"")
    result = wan("cache", "repair", cache)
    assert result.exit_code == 0, result.stderr
    assert "1 entries set aside, index made anew with 1 entries, 1 old indexes deleted" in result.stdout
    assert "not written by this program" in result.stdout
    [aside] = (cache / "image" / "samples" / "v1" / "quarantine").iterdir()
    assert aside.read_bytes() == content
    assert foreign.read_text(encoding="utf-8") == "mine" and not old_index.exists()
    foreign.unlink()
    assert wan("cache", "verify", cache).exit_code == 0
    again = json.loads(wan("cache", "repair", cache, "--json").stdout)
    assert [(store["set_aside"], store["left_alone"], store["entries"]) for store in again["stores"]] == [
        ([], [], 1),
        ([], [], 0),
    ]


def test_repair_is_refused_while_a_run_works_on_the_cache(wan: Any, cache: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.json"
    work = tmp_path / "workspace"
    preset.write_text(json.dumps({"cache_dir": str(cache), "workspace_dir": str(work)}), encoding="utf-8")
    damage(entry_of(cache, "image"))
    with RunDatabase(work / RUN_DATABASE_NAME) as database, database.start_run("train", {"cache_dir": str(cache)}):
        for place in (preset, tmp_path):
            result = wan("cache", "repair", place)
            assert result.exit_code == 2 and "is at work on it" in result.stderr
    assert "1 entries set aside" in wan("cache", "repair", preset).stdout
    (work / RUN_DATABASE_NAME).write_bytes(b"no database" * 1000)
    assert wan("cache", "repair", preset).exit_code == 0


def test_a_cache_that_lost_its_index_is_found_and_mended(wan: Any, cache: Path) -> None:
    for index in cache.rglob("index.sqlite*"):
        index.unlink()
    result = wan("cache", "repair", cache, "--json")
    assert [store["entries"] for store in json.loads(result.stdout)["stores"]] == [2, 1]


# gc


@pytest.fixture
def aged(cache: Path) -> Path:
    """The cache, whose image entries were last used 1 and 40 days ago."""
    with SampleStore(cache / "image" / "samples") as store:
        days = {make_key({"number": 0}): 1, make_key({"number": 1}): 40}
        store._index.touch({key: time.time() - 86400 * ago for key, ago in days.items()})
    return cache


def test_gc_shows_what_can_go_and_removes_it_only_when_told(wan: Any, aged: Path) -> None:
    before = contents(aged)
    result = wan("cache", "gc", aged, "--older-than", "30d")
    assert result.exit_code == 0, result.stderr
    [row] = [line for line in result.stdout.splitlines() if "not used for too long" in line]
    size = entry_of(aged, "image", 1).stat().st_size
    assert [cell.strip() for cell in row.split("│")[1:]] == ["1", size_text(size)]
    assert "--yes" in result.stdout
    assert contents(aged) == before
    done = json.loads(wan("cache", "gc", aged, "--older-than", "30d", "--yes", "--json").stdout)
    assert done["planned"] == [{"reason": "age", "entries": 1, "bytes": size}]
    assert (done["removed"], done["bytes_freed"], done["entries"]) == (True, size, 2)
    assert not entry_of(aged, "image", 1).exists() and entry_of(aged, "image", 0).exists()
    assert wan("cache", "verify", aged).exit_code == 0
    assert "nothing fits" in wan("cache", "gc", aged, "--older-than", "30d").stdout


def test_gc_by_size_and_by_need(wan: Any, aged: Path) -> None:
    size = sum(len(content) for content in contents(aged).values())
    answer = json.loads(wan("cache", "gc", aged, "--max-size", f"{(size - 1) / 1000}kB", "--json").stdout)
    assert [(plan["reason"], plan["entries"]) for plan in answer["planned"]] == [("size", 1)]
    for kind in ("image", "text"):
        with SampleStore(aged / kind / "samples") as store:
            store.note_needed("training", {make_key({"number": 0}): "cats"}, replace=True)
    result = wan("cache", "gc", aged, "--unneeded", "--yes")
    assert result.exit_code == 0, result.stderr
    assert "2 entries" in result.stdout and "stay" in result.stdout
    assert sorted(contents(aged)) == sorted(str(entry_of(aged, kind)) for kind in ("image", "text"))


def test_gc_does_not_guess_what_is_needed(wan: Any, cache: Path) -> None:
    result = wan("cache", "gc", cache, "--unneeded", "--yes")
    assert result.exit_code == 2
    assert "wan cache build" in result.stderr
    assert len(contents(cache)) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say what can go"),
        (["--yes"], "say what can go"),
        (["--older-than", "soon"], "30d"),
        (["--older-than", "30"], "30d"),
        (["--max-size", "-1GB"], "50GB"),
        (["--max-size", "9" * 20 + "GB"], "50GB"),
    ],
)
def test_gc_without_a_clear_criterion_is_a_usage_error(wan: Any, cache: Path, options: list[str], said: str) -> None:
    result = wan("cache", "gc", cache, *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(contents(cache)) == 3


# export and import


def test_a_cache_travels_in_one_file(wan: Any, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "cache.tar"
    exported = wan("cache", "export", file, cache)
    assert exported.exit_code == 0, exported.stderr
    assert exported.stdout.startswith("3 entries, ")
    preset = tmp_path / "elsewhere.json"
    preset.write_text(json.dumps({"cache_dir": str(tmp_path / "new")}), encoding="utf-8")
    imported = wan("cache", "import", file, preset)
    assert imported.exit_code == 0, imported.stderr
    assert "3 entries taken in, 0 were there, 0 refused" in imported.stdout
    again = json.loads(wan("cache", "import", file, preset, "--json").stdout)
    assert (again["imported"], again["present"], again["refused"]) == (0, 3, [])
    assert wan("cache", "verify", preset).exit_code == 0
    assert [path.read_bytes() for path in sorted(cache.rglob("*.safetensors"))] == [
        path.read_bytes() for path in sorted((tmp_path / "new").rglob("*.safetensors"))
    ]


def test_a_file_that_is_there_is_not_replaced(wan: Any, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "thesis.tar"
    file.write_bytes(b"three years of work")
    result = wan("cache", "export", file, cache)
    assert result.exit_code == 2 and str(file) in result.stderr
    assert file.read_bytes() == b"three years of work"
    nowhere = wan("cache", "export", tmp_path / "no folder" / "x.tar", cache)
    assert nowhere.exit_code == 2 and "no folder" in nowhere.stderr


def test_what_is_damaged_is_left_out_of_an_export_and_named(wan: Any, cache: Path, tmp_path: Path) -> None:
    damage(entry_of(cache, "text"))
    result = wan("cache", "export", tmp_path / "cache.tar", cache, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["exported"] == 2
    assert [refused["path"] for refused in answer["refused"]] == [str(entry_of(cache, "text"))]


def test_an_import_refuses_what_is_no_entry_and_takes_in_the_rest(wan: Any, cache: Path, tmp_path: Path) -> None:
    good = entry_of(cache, "image")
    file = tmp_path / "hostile.tar"
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(good, f"../escaped/{good.name}")
        archive.add(good, f"image/samples/{good.name}")
    into = tmp_path / "into" / "cache"
    into.mkdir(parents=True)
    result = wan("cache", "import", file, into)
    assert result.exit_code == 1
    assert "1 entries taken in, 0 were there, 1 refused" in result.stdout
    assert f"refused: '../escaped/{good.name}': its name is not that of an entry" in result.stdout
    assert [path.name for path in into.parent.iterdir()] == ["cache"]


@pytest.mark.parametrize("content", [None, b"no archive" * 100])
def test_what_is_no_archive_is_a_usage_error(wan: Any, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "some.file"
    if content is not None:
        file.write_bytes(content)
    into = tmp_path / "into"
    into.mkdir()
    result = wan("cache", "import", file, into)
    assert result.exit_code == 2
    assert str(file) in result.stderr and "wan cache export" in result.stderr
    assert list(into.iterdir()) == []


# build

WritePreset = Callable[..., Path]


def test_a_cache_is_built_once_and_training_finds_all_of_it(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "empty.mp4").write_bytes(b"")
    preset = write_preset(clips)
    result = wan("cache", "build", preset)
    assert result.exit_code == 0, result.stderr
    for text in ("empty.mp4", "the file is empty", "1 cached, 1 left out, 0 failed", "0 hits, 2 made anew"):
        assert text in result.stdout
    assert "1 (cache): finished" in wan("stats", preset).stdout
    again = json.loads(wan("cache", "build", preset, "--json").stdout)
    assert (again["cache_hits"], again["cache_misses"], again["valid"]) == (2, 0, 1)
    stats = json.loads(wan("cache", "stats", preset, "--json").stdout)
    assert [(concept["name"], concept["entries"]) for concept in stats["concepts"]] == [("clips", 2)]
    built = {"hits": 2, "misses": 0, "hit_rate": 1.0, "miss_rate": 0.0, "mean_read_seconds": None}
    assert stats["last_run"] == built
    trained = wan("train", "--config", preset)
    assert "2 hits, 0 made anew" in trained.stdout
    stats = json.loads(wan("cache", "stats", preset, "--json").stdout)
    assert 0 < stats["last_run"]["mean_read_seconds"] < 60
    assert " ms a read" in wan("cache", "stats", preset).stdout


def test_the_variations_of_all_epochs_are_built(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    concept = {"name": "clips", "path": str(clips), "image_variations": 3, "text_variations": 2}
    preset = write_preset(concepts=[concept], epochs=4)
    built = json.loads(wan("cache", "build", preset, "--json").stdout)
    assert (built["epochs"], built["cache_misses"]) == (3, 5)
    trained = wan("train", "--config", preset)
    assert trained.exit_code == 0, trained.stderr
    assert "0 made anew" in trained.stdout


def test_a_cache_that_was_carried_is_trained_on_without_its_sources(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    home = write_preset(clips, epochs=2)
    assert wan("cache", "build", home).exit_code == 0
    assert wan("train", "--config", home).exit_code == 0
    file = tmp_path / "cache.tar"
    assert json.loads(wan("cache", "export", file, home, "--json").stdout)["lists"] == 2
    away = tmp_path / "away"
    there = write_preset(
        concepts=[{"name": "clips", "path": str(away / "never here")}],
        epochs=2,
        cache_dir=str(away / "cache"),
        workspace_dir=str(away / "workspace"),
        output_model_destination=str(away / "lora.safetensors"),
    )
    refused = wan("train", "--config", there)
    assert refused.exit_code == 2 and "there is nothing at" in refused.stderr
    assert json.loads(wan("cache", "import", file, there, "--json").stdout)["lists"] == 2
    trained = wan("train", "--config", there)
    assert trained.exit_code == 0, trained.stderr
    assert "2 hits, 0 made anew" in trained.stdout
    (one, _), (other, _) = (load_lora(folder / "lora.safetensors") for folder in (tmp_path, away))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_building_loads_no_transformer(wan: Any, clips: Path, write_preset: WritePreset, tiny_wan: Path) -> None:
    """Neither is its file needed: the cache can be made where the 28 GB are not."""
    import shutil

    folder = clips.parent / "encoders"
    shutil.copytree(tiny_wan, folder)
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()
    preset = write_preset(clips, base_model_name=str(folder))
    result = wan("cache", "build", preset)
    assert result.exit_code == 0, result.stderr
    assert "0 hits, 2 made anew" in result.stdout
    assert wan("train", "--config", preset).exit_code == 2
    assert "2 hits, 0 made anew" in wan("cache", "build", write_preset(clips)).stdout, "the keys are the same"


def test_without_a_usable_clip_nothing_is_built(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "good.mp4").write_bytes(b"")
    result = wan("cache", "build", write_preset(clips))
    assert result.exit_code == 3
    assert "the file is empty" in result.stderr


def test_a_preset_that_trains_without_a_cache_has_none_to_build(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    result = wan("cache", "build", write_preset(clips, latent_caching=False))
    assert result.exit_code == 2
    assert "latent_caching" in result.stderr


def test_an_interrupted_build_exits_with_130_and_the_next_one_goes_on(
    wan: Any, clips: Path, write_preset: WritePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clips import write_clip

    write_clip(clips / "second.mp4", (paint_frame(n, width=64, height=48, hue=0.5) for n in range(24)))
    preset = write_preset(clips, epochs=2)
    open_epoch = cache_build.TrainingData.open_epoch

    def interrupted(self: Any) -> None:
        open_epoch(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(cache_build.TrainingData, "open_epoch", interrupted)
        assert wan("cache", "build", preset).exit_code == 130
    assert "1 (cache): interrupted" in wan("stats", preset).stdout
    assert "4 hits, 0 made anew" in wan("cache", "build", preset).stdout


@pytest.mark.parametrize(
    ("concepts", "epochs", "expected"),
    [
        ([{}], 50, 1),
        ([{"image_variations": 3}, {"text_variations": 5}], 50, 5),
        ([{"image_variations": 30}], 4, 4),
        ([{"image_variations": 3, "enabled": False}, {}], 50, 1),
        ([{"image_variations": 3, "balancing": 2.5}], 50, 3),
        ([{"image_variations": 3, "balancing": 0.5}], 50, 50),
        ([{"image_variations": 3, "balancing": 4, "balancing_strategy": "SAMPLES"}], 50, 50),
    ],
)
def test_so_many_epochs_have_every_variation(
    clips: Path, write_preset: WritePreset, concepts: list[dict[str, Any]], epochs: int, expected: int
) -> None:
    named = [{"name": f"{n}", "path": str(clips), "seed": n, **fields} for n, fields in enumerate(concepts)]
    assert epochs_until_all_variations(read_preset(write_preset(concepts=named, epochs=epochs))) == expected


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_400_000, "3.4 MB"), (5e15, "5000.0 TB")],
)
def test_sizes_are_written_as_people_read_them(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (125, "2 min 5 s"), (12_000, "3 h 20 min")],
)
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
