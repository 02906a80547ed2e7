"""A full disk stops a write with a clear error and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wan_fixes.errors import CriticalError
from wan_fixes.store import Quarantine, SampleStore, atomic

from .samples_made_up import item_of, key_of, same

MEGABYTE = 1 << 20


def fill_up(store: SampleStore) -> tuple[list[int], CriticalError]:
    """Put items until the disk is full: those that were put, and the error."""
    numbers: list[int] = []
    with pytest.raises(CriticalError) as caught:
        for number in range(10_000):
            store.put(key_of(number), item_of(number))
            numbers.append(number)
    return numbers, caught.value


def entries_and_leftovers(store: SampleStore) -> tuple[list[Path], list[Path]]:
    return sorted(store.folder.rglob("*.safetensors")), list((store.folder / "tmp").iterdir())


def test_a_full_disk_is_named_with_the_bytes_needed(small_disk: Path) -> None:
    with SampleStore(small_disk) as store:
        with pytest.raises(CriticalError) as caught:
            store.put(key_of(0), {"latent": np.zeros(3 * MEGABYTE, np.uint8)})
        assert caught.value.context["bytes_needed"] > 3 * MEGABYTE
        assert caught.value.context["bytes_free"] < 2 * MEGABYTE
        assert "full" in caught.value.reason and "free some space" in caught.value.fix
        assert entries_and_leftovers(store) == ([], [])
        assert not store.contains(key_of(0))


def test_what_was_put_before_the_disk_was_full_stays_whole(small_disk: Path) -> None:
    store = SampleStore(small_disk)
    numbers, error = fill_up(store)
    assert len(numbers) > 3 and "full" in str(error)
    assert entries_and_leftovers(store)[1] == []
    assert all(same(store.get(key_of(number)), number) for number in numbers)
    store.close()
    again = SampleStore(small_disk)
    assert all(same(again.get(key_of(number)), number) for number in numbers)
    assert again.verify() == []


def test_reading_goes_on_when_the_index_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise CriticalError("database cannot be used", reason="database or disk is full")

    store = SampleStore(tmp_path)
    store.put(key_of(0), item_of(0))
    store._index.remove(key_of(0))
    monkeypatch.setattr(store._index.database, "write", fail)
    assert not store.contains(key_of(1))
    assert store.contains(key_of(0))
    assert same(store.get(key_of(0)), 0)
    assert list(store.small_values([key_of(0)])) == [key_of(0)]
    store.close()
    with pytest.raises(CriticalError, match="full"):
        store.put(key_of(1), item_of(1))


def test_after_making_room_the_cache_goes_on(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(MEGABYTE))
    store = SampleStore(small_disk / "cache")
    numbers, _ = fill_up(store)
    ballast.unlink()
    following = len(numbers)
    store.put(key_of(following), item_of(following))
    assert all(same(store.get(key_of(number)), number) for number in range(following + 1))


def test_a_start_on_a_disk_full_to_the_last_byte_says_so_and_spoils_nothing(small_disk: Path) -> None:
    with SampleStore(small_disk / "cache") as store:
        store.put(key_of(0), item_of(0))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with pytest.raises(CriticalError) as caught:
        SampleStore(small_disk / "cache")
    assert "full" in str(caught.value)
    ballast.unlink()
    with SampleStore(small_disk / "cache") as store:
        assert same(store.get(key_of(0)), 0)
        assert store.notices == []


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on a file's size here")
def test_a_limit_on_file_sizes_counts_as_a_full_disk(tmp_path: Path) -> None:
    import resource

    store = SampleStore(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, before[1]))
    try:
        with pytest.raises(CriticalError, match="limit"):
            store.put(key_of(0), {"latent": np.zeros(2 * MEGABYTE, np.uint8)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert entries_and_leftovers(store) == ([], [])
    store.put(key_of(0), item_of(0))
    assert same(store.get(key_of(0)), 0)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failure_at_any_step_leaves_the_old_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    store = SampleStore(tmp_path)
    store.put(key_of(0), {"x": 1})
    with monkeypatch.context() as patch:
        steps = {"write": (atomic, "_write"), "fsync": (atomic.os, "fsync"), "replace": (atomic, "replace_patiently")}
        patch.setattr(*steps[step], fail)
        with pytest.raises(CriticalError) as caught:
            store.put(key_of(0), item_of(0))
    assert caught.value.path == str(store._path(key_of(0))) and caught.value.fix
    assert (os.strerror(number) in caught.value.reason) == (number != errno.ENOSPC)
    assert store.get(key_of(0)) == {"x": 1}
    assert len(entries_and_leftovers(store)[0]) == 1 and entries_and_leftovers(store)[1] == []


def test_ctrl_c_during_a_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    store = SampleStore(tmp_path)
    monkeypatch.setattr(atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put(key_of(0), item_of(0))
    assert entries_and_leftovers(store) == ([], [])


def test_a_database_that_finds_no_room_says_so_as_entries_do(small_disk: Path) -> None:
    quarantine = Quarantine(small_disk / "quarantine.sqlite")
    with pytest.raises(CriticalError) as caught:
        for number in range(10_000):
            quarantine.add(f"{number}.mp4", key_of(number), "x" * 10_000)
    assert "full" in caught.value.reason and atomic.DISK_FULL in caught.value.context
    quarantine.close()
