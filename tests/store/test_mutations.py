"""Whatever happens to the files of a cache: what it says is right, or it says nothing, and it can be mended."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan_fixes.errors import EntryError
from wan_fixes.store import SampleStore

from .samples_made_up import item_of, key_of, same

NUMBERS = range(6)
SMALL = {
    key_of(number): repr({name: item_of(number)[name] for name in ("prompt", "crop")}) for number in (*NUMBERS, 99)
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache as a killed program leaves it: part of the index is still in its journal."""
    root = tmp_path_factory.mktemp("sound") / "cache"
    store = SampleStore(root)
    for number in NUMBERS:
        store.put(key_of(number), item_of(number))
        if number == 2:
            store.close()
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    assert (copy / "v1" / "index.sqlite-wal").stat().st_size > 0
    store.close()
    return copy


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 1, 4, 100])):
        if content:
            content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    path.write_bytes(content)


def zero(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content) + 1)
    stop = min(len(content), start + rng.choice([1, 16, 512, 4096]))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def grow(path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 5000)))


def foreign(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.randrange(10_000)))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def swap(path: Path, rng: random.Random) -> None:
    other = rng.choice([other for other in path.parent.parent.rglob("*") if other.is_file()])
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def other_sample(path: Path, rng: random.Random) -> None:
    """A whole and sound entry under the wrong name."""
    source = rng.choice([other for other in path.parent.parent.rglob("*.safetensors") if other.is_file()])
    if source != path:
        shutil.copyfile(source, path)


def newer_version(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"2"'))


def other_database(path: Path, rng: random.Random) -> None:
    other = path.with_name("other.sqlite")
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute(rng.choice(["CREATE TABLE entries (key TEXT)", "CREATE TABLE photos (name TEXT)", "VACUUM"]))
        connection.execute(f"PRAGMA user_version = {rng.randrange(3)}")
        connection.commit()
    other.replace(path)


Mutation = Callable[[Path, random.Random], None]
ANY_FILE: list[Mutation] = [truncate, flip, zero, empty, grow, foreign, remove, folder]
OF_ENTRIES: list[Mutation] = [*ANY_FILE, swap, other_sample, newer_version]
OF_INDEX: list[Mutation] = [*ANY_FILE, other_database]
WHILE_OPEN = ["entry", "entry", "index.sqlite", "index.sqlite", "index.sqlite-wal"]
# This one is memory that the processes share, in a file: cutting it short kills whoever has SQLite's log open.
WHILE_CLOSED = [*WHILE_OPEN, "index.sqlite-shm"]


def mutate(root: Path, targets: list[str], rng: random.Random) -> str:
    """Damage one file of the cache; returns what was done, in words."""
    target = rng.choice(targets)
    if target == "entry":
        files = sorted(path for path in (root / "v1" / "entries").rglob("*.safetensors") if path.is_file())
        mutations = OF_ENTRIES
    else:
        files = [path for path in [root / "v1" / target] if path.is_file()]
        mutations = OF_INDEX if target == "index.sqlite" else ANY_FILE
    if not files:
        return "nothing"
    path, mutation = rng.choice(files), rng.choice(mutations)
    mutation(path, rng)
    return f"{mutation.__name__} {path.name}"


def check(store: SampleStore, *, mend: bool) -> None:
    """All that the store says of its entries is right. With `mend` what it does not have is put again."""
    known = [key for key in SMALL if store.contains(key)]
    assert key_of(99) not in known
    for key, values in store.small_values(SMALL).items():
        assert repr(values) == SMALL[key]
    for number in NUMBERS:
        try:
            assert same(store.get(key_of(number)), number)
        except (KeyError, EntryError):
            if mend:
                store.discard(key_of(number), "damaged")
                store.put(key_of(number), item_of(number))
                assert same(store.get(key_of(number)), number)


def run(sound: Path, root: Path, seed: int, *, open_before: bool) -> None:
    rng = random.Random(seed)
    shutil.copytree(sound, root)
    done: list[str] = []
    try:
        store = SampleStore(root) if open_before else None
        if store is not None:
            check(store, mend=False)
        targets = WHILE_OPEN if open_before else WHILE_CLOSED
        done += [mutate(root, targets, rng) for _ in range(rng.choice([1, 1, 2, 3]))]
        store = store or SampleStore(root)
        check(store, mend=False)
        check(store, mend=True)
        assert store.verify() == []
        store.close()
        store = SampleStore(root)
        check(store, mend=False)
        assert {key_of(number) for number in NUMBERS} <= {*store.keys()}
        assert store.stats().entries >= len(NUMBERS)
        store.close()
    except BaseException as error:
        error.args = (f"after {done} (seed {seed}): {error}",)
        raise
    finally:
        shutil.rmtree(root)


seeds = st.integers(0, 2**32 - 1)
quick = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True
)


@quick
@given(seed=seeds)
def test_a_damaged_cache_is_never_believed_and_mends(sound: Path, tmp_path: Path, seed: int) -> None:
    run(sound, tmp_path / "cache", seed, open_before=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody damage a file that is open")
@quick
@given(seed=seeds)
def test_damage_under_an_open_store_is_never_believed_and_mends(sound: Path, tmp_path: Path, seed: int) -> None:
    run(sound, tmp_path / "cache", seed, open_before=True)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("open_before", [False, True] if os.name == "posix" else [False])
def test_a_thousand_damaged_caches_are_never_believed_and_mend(sound: Path, tmp_path: Path, open_before: bool) -> None:
    for seed in range(1000):
        run(sound, tmp_path / "cache", seed, open_before=open_before)
