"""What gc plans, that it removes just that, and that a store stays sound whatever happens meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wan_fixes.errors import UserError
from wan_fixes.store import SampleStore, samples
from wan_fixes.store.gc import Removable, plan_removal, remove

from .samples_made_up import item_of, key_of, same
from .test_kills import busy

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleStore]:
    """Six entries: number n was used n days and a bit ago, so that 5 is the least recently used."""
    with SampleStore(tmp_path / "cache") as opened:
        for number in range(6):
            opened.put(key_of(number), item_of(number))
        opened._index.touch({key_of(number): time.time() - (number + 0.5) * DAY for number in range(6)})
        yield opened


def numbers(planned: list[Removable]) -> dict[int, str]:
    return {
        number: removable.reason for number in range(6) for removable in planned if removable.name == key_of(number)
    }


def left(store: SampleStore) -> list[int]:
    """The entries that are there, each of them sound; row and file agree."""
    assert store.verify() == []
    found = [number for number in range(6) if store.contains(key_of(number))]
    assert store.keys() == sorted(map(key_of, found))
    assert all(same(store.get(key_of(number)), number) for number in found)
    return found


def files(store: SampleStore) -> int:
    return sum(path.stat().st_size for path in (store.folder / "entries").rglob("*.safetensors"))


def test_what_was_not_used_for_long_goes(store: SampleStore) -> None:
    planned = plan_removal([store], older_than=3 * DAY)
    assert numbers(planned) == {3: "age", 4: "age", 5: "age"}
    assert left(store) == [0, 1, 2, 3, 4, 5], "planning removes nothing"
    before = files(store)
    store.close()
    with SampleStore(store.root) as again:
        planned = plan_removal([again], max_bytes=0)
        assert len(planned) == 6
        assert remove(planned) == before
        assert left(again) == []


def test_the_least_recently_used_go_until_the_rest_fits(store: SampleStore) -> None:
    sizes = {usage.key: usage.size for usage in store.usage()}
    total = sum(sizes.values())
    assert plan_removal([store], max_bytes=total) == []
    assert numbers(plan_removal([store], max_bytes=total - 1)) == {5: "size"}
    planned = plan_removal([store], max_bytes=total - sizes[key_of(5)] - 1)
    assert numbers(planned) == {4: "size", 5: "size"}
    freed = remove(planned)
    assert freed == sum(removable.bytes for removable in planned) == sizes[key_of(4)] + sizes[key_of(5)]
    assert left(store) == [0, 1, 2, 3]


def test_the_size_is_that_of_all_stores_together(store: SampleStore, tmp_path: Path) -> None:
    with SampleStore(tmp_path / "other") as other:
        other.put(key_of(9), item_of(9))
        other._index.touch({key_of(9): time.time() - 4.9 * DAY})
        total = sum(usage.size for one in (store, other) for usage in one.usage())
        sizes = {usage.key: usage.size for usage in store.usage()}
        planned = plan_removal([other, store], max_bytes=total - sizes[key_of(5)] - 1)
        assert [(removable.store, removable.name) for removable in planned] == [(store, key_of(5)), (other, key_of(9))]
        remove(planned)
        assert other.keys() == [] and left(store) == [0, 1, 2, 3, 4]


def test_what_no_latest_start_needs_goes(store: SampleStore) -> None:
    store.note_needed("a", {key_of(0): "cats", key_of(4): "cats"}, replace=True)
    store.note_needed("b", {key_of(1): "dogs"}, replace=True)
    planned = plan_removal([store], unneeded=True)
    assert numbers(planned) == {2: "unneeded", 3: "unneeded", 5: "unneeded"}
    remove(planned)
    assert left(store) == [0, 1, 4]


def test_criteria_add_up(store: SampleStore) -> None:
    store.note_needed("a", {key_of(number): "cats" for number in (0, 1, 4)}, replace=True)
    for number, days in ((2, 2), (3, 9)):
        moment = time.time() - days * DAY
        store._index.touch({key_of(number): moment})
        store._index.note_needed(f"of {number}", {key_of(number): "dogs"}, moment, replace=True)
    sizes = {usage.key: usage.size for usage in store.usage()}
    rest = sum(sizes[key_of(number)] for number in (0, 1, 2, 4))
    planned = plan_removal([store], older_than=7 * DAY, unneeded=True, max_bytes=rest - 1)
    assert numbers(planned) == {2: "size", 3: "age", 5: "unneeded"}


def test_without_any_start_noted_nothing_counts_as_unneeded(store: SampleStore) -> None:
    with pytest.raises(UserError) as caught:
        plan_removal([store], unneeded=True)
    assert str(store.root) in str(caught.value) and "start a training" in caught.value.fix


def test_files_that_are_in_quarantine_for_long_go_too(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = time.time_ns() - int(5 * DAY * 1e9)
    with monkeypatch.context() as then:
        then.setattr(samples.time, "time_ns", lambda: long_ago)
        store.discard(key_of(0), "on purpose")
    store.discard(key_of(1), "on purpose")
    foreign = store.quarantine_folder / "somebody's notes.txt"
    foreign.write_text("mine", encoding="utf-8")
    planned = plan_removal([store], older_than=4 * DAY)
    aside = [removable for removable in planned if removable.reason == "quarantined"]
    assert [removable.name.split(".")[0] for removable in aside] == [key_of(0)]
    assert remove(aside) == aside[0].bytes > 0
    [kept] = [path for path in store.quarantine_folder.iterdir() if path != foreign]
    assert kept.name.startswith(key_of(1)) and foreign.exists()


# Others at the same store


def test_what_was_used_or_came_to_be_needed_meanwhile_stays(store: SampleStore) -> None:
    store.note_needed("a", {}, replace=True)
    store.note_needed("a", {key_of(0): "cats"}, replace=True)
    planned = plan_removal([store], unneeded=True, older_than=5 * DAY)
    assert numbers(planned) == {1: "unneeded", 2: "unneeded", 3: "unneeded", 4: "unneeded", 5: "age"}
    with SampleStore(store.root) as other:
        other.get(key_of(5))
        other.note_needed("b", {key_of(2): "dogs"}, replace=True)
    remove(planned)
    assert left(store) == [0, 2, 5]


def test_an_entry_that_is_written_anew_while_it_is_removed_keeps_its_row(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process puts it again between the file's end and the row's."""
    planned = [removable for removable in plan_removal([store], max_bytes=0) if removable.name == key_of(3)]
    remove_where = store._index.remove_where

    def put_first(*arguments) -> None:
        with SampleStore(store.root) as other:
            other.put(key_of(3), item_of(3))
        remove_where(*arguments)

    monkeypatch.setattr(store._index, "remove_where", put_first)
    remove(planned)
    assert left(store) == [0, 1, 2, 3, 4, 5]


def test_a_kill_between_file_and_row_leaves_what_mends_itself(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_) -> None:
        raise KeyboardInterrupt

    planned = plan_removal([store], older_than=4 * DAY)
    with monkeypatch.context() as dying:
        dying.setattr(store._index, "remove_where", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(planned)
    with SampleStore(store.root) as again:
        assert [again.contains(key_of(number)) for number in range(6)] == [True] * 4 + [False] * 2
        assert left(again) == [0, 1, 2, 3]


REMOVER = """
import sys
from wan_fixes.store import SampleStore
from wan_fixes.store.gc import plan_removal, remove
store = SampleStore(sys.argv[1])
planned = plan_removal([store], max_bytes=0)
print("planned", flush=True)
for removable in planned:
    remove([removable])
"""


@pytest.mark.parametrize("turn", range(4))
def test_a_killed_gc_leaves_a_sound_store(tmp_path: Path, turn: int) -> None:
    root = tmp_path / "cache"
    with SampleStore(root) as store:
        for number in range(60):
            store.put(key_of(number), item_of(number))
    child = subprocess.Popen([sys.executable, "-c", REMOVER, str(root)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "planned\n"
    busy(0.004 * turn)
    child.kill()
    child.communicate()
    with SampleStore(root) as store:
        there = [number for number in range(60) if store.contains(key_of(number))]
        assert store.verify() == []
        assert store.keys() == sorted(map(key_of, there))
        assert all(same(store.get(key_of(number)), number) for number in there)


# Links


@pytest.mark.skipif(os.name == "nt", reason="making a link takes rights on Windows")
@pytest.mark.parametrize("what", ["entry", "folder"])
def test_nothing_is_removed_behind_a_link(store: SampleStore, tmp_path: Path, what: str) -> None:
    planned = plan_removal([store], max_bytes=0)
    entry = store._path(key_of(2))
    place = entry if what == "entry" else entry.parent
    outside = tmp_path / "outside"
    place.rename(outside)
    place.symlink_to(outside, target_is_directory=what == "folder")
    remove(planned)
    assert outside.exists() and place.is_symlink()
    if what == "folder":
        assert [path.name for path in outside.iterdir()] == [entry.name]
