"""What the index remembers of need and use: by owner, by concept, and over restarts."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.store import SampleStore, database, samples

from .samples_made_up import item_of, key_of


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with SampleStore(tmp_path / "cache") as opened:
        for number in range(4):
            opened.put(key_of(number), item_of(number))
        yield opened


def needed(store: SampleStore) -> set[str]:
    return {usage.key for usage in store.usage() if usage.needed}


def keys(*numbers: int) -> set[str]:
    return set(map(key_of, numbers))


def test_an_owner_needs_what_it_noted_since_it_last_replaced_it(store: SampleStore) -> None:
    assert needed(store) == set()
    store.note_needed("a", dict.fromkeys(keys(0, 1), "cats"), replace=True)
    store.note_needed("a", dict.fromkeys(keys(2), "cats"), replace=False)
    assert needed(store) == keys(0, 1, 2)
    store.note_needed("b", dict.fromkeys(keys(0), "dogs"), replace=True)
    store.note_needed("a", dict.fromkeys(keys(3), "cats"), replace=True)
    store.close()
    with SampleStore(store.root) as again:
        assert needed(again) == keys(0, 3)


def test_each_concept_has_its_entries_once_whoever_needs_them(store: SampleStore) -> None:
    sizes = {usage.key: usage.size for usage in store.usage()}
    store.note_needed("a", {key_of(0): "cats", key_of(1): "dogs", key_of(99): "cats"}, replace=True)
    store.note_needed("b", {key_of(0): "cats", key_of(2): "cats"}, replace=True)
    assert store.concepts() == [
        ("cats", 2, sizes[key_of(0)] + sizes[key_of(2)]),
        ("dogs", 1, sizes[key_of(1)]),
    ]


def test_a_key_that_went_to_another_concept_is_counted_there(store: SampleStore) -> None:
    store.note_needed("a", {key_of(0): "cats", key_of(1): "cats"}, replace=True)
    store.note_needed("a", {key_of(0): "cats", key_of(1): "dogs"}, replace=True)
    assert [(name, entries) for name, entries, _ in store.concepts()] == [("cats", 1), ("dogs", 1)]


def test_what_is_noted_counts_as_used_now(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples.time, "time", lambda: 5e9)
    store.note_needed("a", {key_of(2): "cats"}, replace=True)
    assert {usage.key for usage in store.usage() if usage.last_used == 5e9} == keys(2)
    assert store.usage()[-1].key == key_of(2), "the least recently used comes first"


def test_the_time_of_use_outlasts_a_rebuilt_index(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.usage()
    monkeypatch.setattr(samples.time, "time", lambda: 5e9)
    store.rebuild_index()
    assert store.usage() == before


def test_noting_goes_on_where_the_index_cannot_be_written(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    store.close()
    with SampleStore(store.root) as patient, sqlite3.connect(store.folder / "index.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        patient.note_needed("a", {key_of(2): "cats"}, replace=True)
        other.execute("ROLLBACK")
        assert "locked" in caplog.text
        assert needed(patient) == set()


def test_a_hundred_thousand_are_noted_in_a_few_seconds(store: SampleStore) -> None:
    many = {key_of(number): "cats" for number in range(100_000)}
    started = time.perf_counter()
    store.note_needed("a", many, replace=True)
    assert time.perf_counter() - started < 20, "many times what it takes on a slow disk"
    assert needed(store) == keys(0, 1, 2, 3)
    started = time.perf_counter()
    store.note_needed("a", many, replace=True)
    assert time.perf_counter() - started < 20
    assert needed(store) == keys(0, 1, 2, 3)


def test_what_is_needed_no_more_was_last_used_when_its_owner_was(store: SampleStore) -> None:
    then = time.time() + 100
    store._index.note_needed("a", {key_of(0): "cats", key_of(1): "cats"}, then, replace=True)
    store._index.note_needed("a", {key_of(1): "cats"}, then + 100, replace=True)
    used = {usage.key: usage.last_used for usage in store.usage()}
    assert (used[key_of(0)], used[key_of(1)]) == (then, then + 100)
    assert used[key_of(2)] < then
