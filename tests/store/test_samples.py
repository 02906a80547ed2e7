"""The store keeps what it was given, says what it lacks, and believes no file unchecked."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from wan_fixes.errors import EntryError, UserError
from wan_fixes.store import SampleStore, payload, samples
from wan_fixes.store import make_key as key_from

from .samples_made_up import item_of, key_of, same


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with SampleStore(tmp_path / "cache") as opened:
        yield opened


def file_of(store: SampleStore, number: int) -> Path:
    return store._path(key_of(number))


def fill(store: SampleStore, count: int) -> None:
    for number in range(count):
        store.put(key_of(number), item_of(number))


def reopened(store: SampleStore) -> SampleStore:
    store.close()
    return SampleStore(store.root)


def small(number: int) -> dict[str, Any]:
    return {name: value for name, value in item_of(number).items() if name in ("prompt", "crop")}


def test_an_entry_comes_back_here_and_after_a_restart(store: SampleStore) -> None:
    size = store.put(key_of(1), item_of(1))
    assert size == file_of(store, 1).stat().st_size
    assert store.contains(key_of(1)) and same(store.get(key_of(1)), 1)
    assert same(reopened(store).get(key_of(1)), 1)


def test_named_items_alone_are_delivered(store: SampleStore) -> None:
    store.put(key_of(1), item_of(1))
    assert list(store.get(key_of(1), ["prompt"])) == ["prompt"]


def test_what_is_not_there_is_a_key_error(store: SampleStore) -> None:
    assert not store.contains(key_of(1))
    assert store.small_values([key_of(1)]) == {}
    with pytest.raises(KeyError):
        store.get(key_of(1))


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", "ABCDEF0123456789", "abc", "0123456789abcde/", "con", "0" * 129]
)
def test_what_is_no_key_never_becomes_a_path(store: SampleStore, key: str) -> None:
    for call in (store.get, store.contains, lambda key: store.put(key, {}), lambda key: store.discard(key, "")):
        with pytest.raises(ValueError, match="is not a key"):
            call(key)


def test_putting_again_replaces(store: SampleStore) -> None:
    store.put(key_of(1), {"x": torch.zeros(3), "n": 1})
    store.get(key_of(1))
    store.put(key_of(1), {"x": torch.ones(5), "n": 2})
    assert store.get(key_of(1))["x"].tolist() == [1.0] * 5
    assert store.small_values([key_of(1)]) == {key_of(1): {"n": 2}}
    assert store.stats().entries == 1


def test_a_refused_item_leaves_no_trace(store: SampleStore) -> None:
    with pytest.raises(ValueError, match="latent"):
        store.put(key_of(1), {"latent": torch.tensor([float("nan")])})
    assert not store.contains(key_of(1)) and store.stats().entries == 0
    assert [path for path in store.folder.rglob("*") if path.suffix in (".tmp", samples.SUFFIX)] == []


def test_plain_values_come_from_the_index_alone(store: SampleStore) -> None:
    fill(store, 30)
    for number in range(30):
        file_of(store, number).unlink()
    found = store.small_values([key_of(number) for number in range(40)])
    assert {key: repr(values) for key, values in found.items()} == {
        key_of(number): repr(small(number)) for number in range(30)
    }


def test_more_keys_than_one_query_takes_can_be_asked_for(store: SampleStore) -> None:
    fill(store, 3)
    keys = [key_of(number) for number in range(2000)]
    assert store.small_values(keys).keys() == set(keys[:3])


def test_an_entry_whose_row_was_lost_is_found_again(store: SampleStore) -> None:
    fill(store, 3)
    for number in range(3):
        store._index.remove(key_of(number))
    assert store.stats().entries == 0
    assert store.contains(key_of(0))
    assert repr(store.small_values([key_of(1)])[key_of(1)]) == repr(small(1))
    assert same(store.get(key_of(2)), 2)
    assert store.stats().entries == 3


def test_the_index_is_made_anew_from_the_headers(store: SampleStore) -> None:
    fill(store, 5)
    file_of(store, 3).write_bytes(b"damaged")
    before = store.stats()
    store.rebuild_index()
    assert store.keys() == sorted(key_of(number) for number in (0, 1, 2, 4))
    assert repr(store.small_values([key_of(1)])[key_of(1)]) == repr(small(1))
    assert before.entries == 5 and store.stats().entries == 4


# What is read is verified


def test_damage_is_found_on_the_first_read_only(store: SampleStore) -> None:
    """Later reads cost no checksum: damage that changes neither size, time nor file id is left to the next start."""
    store.put(key_of(1), {"x": torch.zeros(100)})
    store.get(key_of(1))
    path = file_of(store, 1)
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert store.get(key_of(1))["x"][:-1].tolist() == [0.0] * 99
    with pytest.raises(EntryError, match="checksum"):
        reopened(store).get(key_of(1))
    with pytest.raises(EntryError, match="checksum"):
        SampleStore(store.root, verify_always=True).get(key_of(1))


@pytest.mark.parametrize("names", [None, ["prompt"]])
def test_damage_with_a_changed_time_is_found_at_once(store: SampleStore, names: list[str] | None) -> None:
    store.put(key_of(1), item_of(1))
    store.get(key_of(1))
    path = file_of(store, 1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, (1, 1))
    with pytest.raises(EntryError, match="checksum"):
        store.get(key_of(1), names)


def test_a_sound_entry_that_another_process_replaced_is_believed_after_a_check(store: SampleStore) -> None:
    store.put(key_of(1), {"x": torch.zeros(3), "n": 1})
    store.get(key_of(1))
    other = payload.encode(key_of(1), {"x": torch.ones(4), "n": 2})
    file_of(store, 1).write_bytes(b"".join(other.parts))
    assert store.get(key_of(1))["n"] == 2
    assert store.small_values([key_of(1)]) == {key_of(1): {"n": 2}}


def test_swapped_files_are_both_refused(store: SampleStore) -> None:
    fill(store, 2)
    first, second = file_of(store, 0), file_of(store, 1)
    first.rename(first.with_suffix(".swap"))
    second.rename(first)
    first.with_suffix(".swap").rename(second)
    for number in (0, 1):
        with pytest.raises(EntryError, match="another sample"):
            store.get(key_of(number))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def foreign(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 something else")


def newer(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"version":"1"', b'"version":"2"'))


DAMAGES = [empty, cut, folder, foreign, newer, *([link, pipe] if os.name == "posix" else [])]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_refused_discarded_and_made_again(store: SampleStore, damage: Any) -> None:
    store.put(key_of(1), item_of(1))
    damage(file_of(store, 1))
    with pytest.raises(EntryError) as caught:
        store.get(key_of(1))
    assert caught.value.path == str(file_of(store, 1)) and caught.value.reason and caught.value.fix
    store.discard(key_of(1), caught.value.reason)
    with pytest.raises(KeyError):
        store.get(key_of(1))
    assert [path.name.split(".")[0] for path in (store.folder / "quarantine").iterdir()] == [key_of(1)]
    store.put(key_of(1), item_of(1))
    assert same(store.get(key_of(1)), 1)
    assert store.stats().corrupt == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_putting_over_something_damaged_works_without_asking(store: SampleStore, damage: Any) -> None:
    store.put(key_of(1), item_of(1))
    damage(file_of(store, 1))
    store.put(key_of(1), item_of(1))
    assert same(store.get(key_of(1)), 1)


@pytest.mark.parametrize("damage", [empty, cut, folder])
def test_contains_does_not_believe_what_it_can_see_to_be_wrong(store: SampleStore, damage: Any) -> None:
    store.put(key_of(1), item_of(1))
    damage(file_of(store, 1))
    assert not store.contains(key_of(1))
    assert store.stats().corrupt == 1


def test_a_file_in_place_of_a_folder_blocks_nothing(store: SampleStore) -> None:
    file_of(store, 1).parent.write_bytes(b"")
    assert not store.contains(key_of(1))
    with pytest.raises(KeyError):
        store.get(key_of(1))
    assert [problem.path for problem in store.verify()] == [str(file_of(store, 1).parent)]
    store.put(key_of(1), item_of(1))
    assert same(store.get(key_of(1)), 1)


def test_verify_names_what_is_wrong_and_changes_nothing(store: SampleStore) -> None:
    fill(store, 6)
    assert store.verify() == []
    cut(file_of(store, 0))
    file_of(store, 1).unlink()
    file_of(store, 2).rename(file_of(store, 3))
    stray = file_of(store, 4).with_name("holiday.jpg")
    stray.write_bytes(b"a picture")
    misplaced = store.folder / "entries" / "zz" / file_of(store, 5).name
    misplaced.parent.mkdir()
    misplaced.write_bytes(file_of(store, 5).read_bytes())
    problems = {problem.path: problem.reason for problem in store.verify()}
    assert problems.keys() == {
        *(str(file_of(store, number)) for number in (0, 1, 2, 3)),
        str(stray),
        str(misplaced),
    }
    assert problems[str(file_of(store, 1))] == "its file is gone"
    assert "another sample" in problems[str(file_of(store, 3))]
    assert file_of(store, 0).exists() and store.stats().corrupt == 0


# Counting


def test_hits_and_misses_of_this_process_are_counted(store: SampleStore) -> None:
    assert store.stats() == samples.StoreStats(0, 0, 0, 0, 0, 0.0)
    assert not store.contains(key_of(1))
    size = store.put(key_of(1), item_of(1))
    store.get(key_of(1))
    store.get(key_of(1), ["prompt"])
    with pytest.raises(KeyError):
        store.get(key_of(2))
    stats = store.stats()
    assert (stats.entries, stats.bytes, stats.hits, stats.misses) == (1, size, 2, 2)
    assert stats.mean_access_seconds > 0
    again = reopened(store).stats()
    assert (again.entries, again.bytes, again.hits, again.misses) == (1, size, 0, 0)


def test_corruption_is_counted_over_restarts_and_over_the_loss_of_the_index(store: SampleStore) -> None:
    fill(store, 2)
    store.discard(key_of(0), "damaged \ud800 by a name that is no text")
    store.discard(key_of(7), "missing")
    assert reopened(store).stats().corrupt == 2
    store.rebuild_index()
    assert store.stats().corrupt == 2
    store.close()
    (store.folder / "index.sqlite").unlink()
    store = reopened(store)
    assert store.stats().corrupt == 1  # as many as there are files in quarantine
    store.discard(key_of(1), "damaged")
    assert store.stats().corrupt == 2


def test_the_time_of_use_is_kept(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 2)
    monkeypatch.setattr(samples.time, "time", lambda: 5e9)
    store.get(key_of(1))
    store.close()
    rows = store._index.database.read(lambda c: c.execute("SELECT key FROM entries WHERE last_used = 5e9").fetchall())
    assert rows == [(key_of(1),)]


# Versions, places, processes


def test_a_cache_of_another_format_is_named_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer_folder = tmp_path / "cache" / "v2"
    newer_folder.mkdir(parents=True)
    (newer_folder / "index.sqlite").write_bytes(b"of the future")
    with caplog.at_level(logging.WARNING), SampleStore(tmp_path / "cache") as store:
        store.put(key_of(1), item_of(1))
        [notice] = store.notices
    assert notice.path == str(newer_folder) and "version 2" in notice.reason and "left alone" in notice.fix
    assert str(newer_folder) in caplog.text
    assert [path.name for path in newer_folder.iterdir()] == ["index.sqlite"]
    assert (newer_folder / "index.sqlite").read_bytes() == b"of the future"


def test_an_index_of_another_version_is_kept_named_and_made_anew_from_the_entries(store: SampleStore) -> None:
    fill(store, 3)
    store._index.database.write(lambda connection: connection.execute("PRAGMA user_version = 999"))
    again = reopened(store)
    [notice] = again.notices
    assert notice.path == str(store.folder / "index.sqlite") and "version 999" in notice.reason
    assert len(list(store.folder.glob("index.sqlite.set-aside-*"))) == 1
    assert again.keys() == sorted(map(key_of, range(3)))


@pytest.mark.parametrize("what", ["file", "below a file"])
def test_a_place_that_can_hold_no_cache_is_named(tmp_path: Path, what: str) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        SampleStore(tmp_path / "cache" if what == "file" else tmp_path / "cache" / "deeper")
    assert str(tmp_path / "cache") in str(caught.value) and caught.value.fix


def test_a_store_can_be_sent_to_a_worker(store: SampleStore) -> None:
    store.put(key_of(1), item_of(1))
    assert same(pickle.loads(pickle.dumps(store)).get(key_of(1)), 1)


def test_a_closed_store_opens_itself_again(store: SampleStore) -> None:
    store.close()
    store.put(key_of(1), item_of(1))
    store.close()
    assert store.contains(key_of(1))


def test_threads_share_one_store(store: SampleStore) -> None:
    """Eight threads write, read and look at twenty entries, each in an order of its own."""
    failures: list[Any] = []

    def work(offset: int) -> None:
        try:
            for step in range(20):
                number = (step * 7 + offset) % 20
                if not store.contains(key_of(number)):
                    store.put(key_of(number), item_of(number))
                if not same(store.get(key_of(number)), number):
                    failures.append(number)
                store.small_values([key_of(other) for other in range(20)])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.stats().entries == 20 and store.stats().hits == 160
    assert store.verify() == []


def test_what_needs_no_tensors_imports_no_torch() -> None:
    code = (
        "import sys; from wan_fixes.store import ContentIds, Quarantine, SampleStore, content_id, make_key;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_keys_of_different_settings_do_not_meet(store: SampleStore) -> None:
    keys = [key_from({"clip": "0f", "frames": frames}) for frames in (80, 81)]
    store.put(keys[0], {"n": 80})
    assert not store.contains(keys[1])
