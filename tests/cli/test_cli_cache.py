"""`wan cache stats`: what every cache of a preset or folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from wan_fixes.cli.tables import duration_text, size_text
from wan_fixes.store import SampleStore, make_key


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
