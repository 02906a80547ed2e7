"""A repair keeps all that is sound, sets the rest aside, and is safe to interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from wan_fixes.store import SampleStore
from wan_fixes.store.manifest import Manifest
from wan_fixes.store.repair import repair

from .samples_made_up import item_of, key_of, same


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SampleStore]:
    with SampleStore(tmp_path / "cache") as opened:
        for number in range(6):
            opened.put(key_of(number), item_of(number))
        yield opened


def sound(store: SampleStore) -> list[int]:
    """What is there, each read and compared; nothing else may be."""
    assert store.verify() == []
    there = [number for number in range(6) if store.contains(key_of(number))]
    assert store.keys() == sorted(map(key_of, there))
    assert all(same(store.get(key_of(number)), number) for number in there)
    return there


def test_every_kind_of_damage_is_mended_at_once(store: SampleStore) -> None:
    flipped, cut, missing = (store._path(key_of(number)) for number in (0, 1, 2))
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    cut.write_bytes(cut.read_bytes()[:20])
    missing.unlink()
    three, four = (store._path(key_of(number)) for number in (3, 4))
    three.write_bytes(four.read_bytes())  # another sample's
    done = repair(store)
    assert sorted(Path(str(error.path)) for error in done.discarded) == sorted([flipped, cut, three])
    assert done.left == ()
    assert len(list(store.quarantine_folder.iterdir())) == 3
    assert sound(store) == [4, 5]
    assert repair(store).discarded == ()


def test_a_damaged_list_of_samples_is_named_and_goes(store: SampleStore) -> None:
    store.write_manifest("0" * 32, Manifest())
    store.write_manifest("1" * 32, Manifest())
    assert store.verify() == []
    content = b'{"format":99}'
    other = store.manifests_folder / f"{'2' * 32}.json"
    other.write_bytes(xxhash.xxh3_128_hexdigest(content).encode() + b"\n" + content)
    assert store.verify() == [], "a list of another version is no damage"
    damaged = store.manifests_folder / f"{'1' * 32}.json"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    [problem] = store.verify()
    assert problem.path == str(damaged) and "list of samples is damaged" in problem.reason
    done = repair(store)
    assert (done.discarded, done.left, done.lists) == ((), (), 1)
    assert store.verify() == []
    assert [identity for identity, _ in store.manifests()] == ["0" * 32]
    assert other.exists()


def test_need_and_use_outlast_a_repair(store: SampleStore) -> None:
    store.note_needed("a", {key_of(3): "cats"}, replace=True)
    before = store.usage()
    repair(store)
    assert store.usage() == before


def test_an_interrupted_repair_leaves_a_sound_store(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = store._path(key_of(0))
    damaged.write_bytes(b"")

    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(store, "rebuild_index", killed)
        with pytest.raises(KeyboardInterrupt):
            repair(store)
    with SampleStore(store.root) as again:
        assert sound(again) == [1, 2, 3, 4, 5]
