"""Whatever happens to the files of a cache, the batches are right, and nothing is encoded that is still sound."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from wan_fixes.store import payload

from .toys import Contexts
from .world import World, are_same, bulky, concept_over, write_sample

SAMPLES = 25
SPARED = 5
PER_ROUND = 2 * SAMPLES - SPARED


def encode(number: int, variation: int) -> torch.Tensor:
    """Long enough for most flips to hit the tensor, and short enough for some to hit the header."""
    return bulky(number, variation, 512)


class Cached:
    """A folder that is cached, and the files of its entries as they should be."""

    def __init__(self, top: Path, contexts: Contexts) -> None:
        self.top = top
        self.contexts = contexts
        for number in range(1, SAMPLES + 1):
            write_sample(top / "clips", number)
        with self.started(threads=1) as world:
            self.samples = world.epoch()
        self.sound = {path: path.read_bytes() for path in sorted(top.glob("cache/*/samples/v1/entries/*/*"))}
        self.numbers = {path: number_in_entry(path) for path in self.sound}
        assert len(self.sound) == 2 * SAMPLES

    @contextlib.contextmanager
    def started(self, threads: int) -> Iterator[World]:
        """A start of the program, and its end."""
        with self.contexts.new_files(self.top / "files") as context:
            clips = [concept_over(self.top / "clips")]
            options = {"image_fault": encode, "text_fault": encode, "threads": threads, "guards": True}
            yield World(context, self.top / "cache", clips, **options)

    def store(self, cache: str) -> Path:
        return self.top / "cache" / cache / "samples" / "v1"

    def damaged(self, cache: str) -> list[Path]:
        """The entries that are not as they should be."""
        ours = [path for path in self.sound if path.is_relative_to(self.store(cache))]
        return [path for path in ours if not path.is_file() or path.read_bytes() != self.sound[path]]


def number_in_entry(path: Path) -> int:
    with payload.open_entry(path) as file:
        item = payload.read_item(file, path, payload.read_header(file, path, path.stem), verify=True)
    return int(next(iter(item.values()))[0])


def truncate(path: Path, waiting: list[Path], rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(path: Path, waiting: list[Path], rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    path.write_bytes(content)


def zero(path: Path, waiting: list[Path], rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.choice([0, rng.randrange(len(content))])
    stop = rng.choice([len(content), min(len(content), start + 16)])
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def empty(path: Path, waiting: list[Path], rng: random.Random) -> None:
    path.write_bytes(b"")


def foreign(path: Path, waiting: list[Path], rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice([1, 100, path.stat().st_size])))


def stale(path: Path, waiting: list[Path], rng: random.Random) -> None:
    """As another version of the program writes it: whole, sound, and of this sample."""
    with path.open("rb") as file:
        item = payload.read_item(file, path, payload.read_header(file, path, path.stem), verify=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payload, "FORMAT_VERSION", rng.choice([0, 2]))
        path.write_bytes(b"".join(payload.encode(path.stem, item).parts))


def swap(path: Path, waiting: list[Path], rng: random.Random) -> None:
    """With one that nothing else happens to."""
    if waiting:
        other = waiting.pop()
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)


def folder(path: Path, waiting: list[Path], rng: random.Random) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def remove(path: Path, waiting: list[Path], rng: random.Random) -> None:
    path.unlink()


def swap_rows(path: Path, waiting: list[Path], rng: random.Random) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        rows = connection.execute("SELECT * FROM entries").fetchall()
        keys = [row[0] for row in rows]
        rng.shuffle(keys)
        connection.execute("DELETE FROM entries")
        swapped = [(key, *row[1:]) for key, row in zip(keys, rows, strict=True)]
        connection.executemany(f"INSERT INTO entries VALUES ({','.join('?' * len(rows[0]))})", swapped)


Mutation = Callable[[Path, list[Path], random.Random], None]
OF_ENTRIES: list[Mutation] = [truncate, flip, flip, zero, empty, foreign, stale, swap, folder, remove]
OF_INDEX: list[Mutation] = [truncate, flip, zero, empty, foreign, folder, remove, swap_rows]


def mutate(cached: Cached, rng: random.Random) -> None:
    """Something happens to all entries but a few, and now and then to an index."""
    waiting = rng.sample(list(cached.sound), PER_ROUND)
    while waiting:
        rng.choice(OF_ENTRIES)(waiting.pop(), waiting, rng)
    for cache in ("image", "text"):
        if rng.random() < 0.4:
            rng.choice(OF_INDEX)(cached.store(cache) / "index.sqlite", [], rng)


def check(cached: Cached, threads: int) -> None:
    """The next start encodes what is damaged, nothing else, and says so."""
    damaged = {cache: cached.damaged(cache) for cache in ("image", "text")}
    to_quarantine = {cache: sum(map(os.path.lexists, paths)) for cache, paths in damaged.items()}
    before = {cache: set((cached.store(cache) / "quarantine").iterdir()) for cache in damaged}
    with cached.started(threads) as world:
        assert are_same(world.epoch(), cached.samples)
        made = dict(zip(damaged, world.encoded(), strict=True))
        caches = {"image": world.image_cache, "text": world.text_cache}
        for cache, paths in damaged.items():
            assert made[cache] == sorted((cached.numbers[path], 0) for path in paths)
            assert len(set((cached.store(cache) / "quarantine").iterdir()) - before[cache]) == to_quarantine[cache]
            assert caches[cache].get_cache_statistics().corruption_count == to_quarantine[cache]
            assert caches[cache].store.verify() == []
            assert cached.damaged(cache) == []


def rounds(cached: Cached, mutations: int) -> None:
    for _ in range(-(-mutations // PER_ROUND)):
        seed = random.randrange(2**32)
        rng = random.Random(seed)
        try:
            mutate(cached, rng)
            check(cached, rng.choice([1, 3]))
        except BaseException as error:
            error.args = (f"with seed {seed}: {error}",)
            raise


@pytest.fixture
def cached(tmp_path: Path, contexts: Contexts) -> Cached:
    return Cached(tmp_path, contexts)


def test_a_thousand_mutations_cost_what_they_damaged(cached: Cached) -> None:
    rounds(cached, 1000)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_ten_thousand_mutations_cost_what_they_damaged(cached: Cached) -> None:
    rounds(cached, 10_000)
