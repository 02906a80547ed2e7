"""A killed writer loses what was in flight and nothing else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wan_fixes.store import SampleStore, atomic

from .samples_made_up import key_of, same

WRITER = Path(__file__).with_name("samples_made_up.py")
PER_WRITER = 1000


class Writer:
    """A child process that puts items `first` to `last` - 1, each announced once `put` has returned."""

    def __init__(self, root: Path, first: int, last: int, threads: int = 2) -> None:
        self.reported: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, str(WRITER), str(root), str(first), str(last), str(threads)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "open\n"

    def listen(self, count: int) -> None:
        """Wait for `count` more announcements."""
        assert self._process.stdout is not None
        self.reported += [int(self._process.stdout.readline()) for _ in range(count)]

    def kill(self) -> None:
        """End it at once, and hear what it had still said."""
        self._process.kill()
        said, _ = self._process.communicate()
        # the last line may have been cut by the kill
        self.reported += [int(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]

    def finish(self) -> None:
        said, _ = self._process.communicate(timeout=120)
        self.reported += map(int, said.split())
        assert self._process.returncode == 0


def busy(seconds: float) -> None:
    """Let a moment pass without giving up the processor, so that the kill falls anywhere."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def leftovers(root: Path) -> list[Path]:
    return list((root / "v1" / "tmp").iterdir())


def check_all(root: Path, reported: set[int]) -> None:
    """What was reported is there, and what is there is right."""
    with SampleStore(root) as store:
        assert store.verify() == []
        keys = store.keys()
        numbers = {key: values["crop"][0] for key, values in store.small_values(keys).items()}
        assert all(key == key_of(number) and same(store.get(key), number) for key, number in numbers.items())
        assert sorted(numbers) == keys
        assert reported <= set(numbers.values())


def kill_at_random_moments(root: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    reported: set[int] = set()
    for turn in range(kills):
        writer = Writer(root, turn * PER_WRITER, (turn + 1) * PER_WRITER)
        writer.listen(rng.choice([0, 0, 1, 3, 20]))
        busy(rng.random() * 0.02)
        writer.kill()
        reported |= set(writer.reported)
        check_all(root, set(writer.reported))
    check_all(root, reported)
    assert len(reported) >= kills  # else nothing was tried
    for path in leftovers(root):
        os.utime(path, (1, 1))
    SampleStore(root).close()
    assert leftovers(root) == []


def test_a_kill_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path / "cache", kills=15, seed=random.randrange(2**32))


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_many_kills_lose_nothing_that_was_reported(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path / "cache", kills=80, seed=random.randrange(2**32))


def test_two_processes_write_the_same_entries(tmp_path: Path) -> None:
    writers = [Writer(tmp_path / "cache", 0, 60) for _ in range(2)]
    for writer in writers:
        writer.finish()
    assert all(sorted(writer.reported) == list(range(60)) for writer in writers)
    check_all(tmp_path / "cache", set(range(60)))
    with SampleStore(tmp_path / "cache") as store:
        assert store.stats().entries == 60
        assert store.stats().bytes == sum(path.stat().st_size for path in store.folder.rglob("*.safetensors"))


def test_one_of_two_processes_is_killed_and_the_other_does_not_notice(tmp_path: Path) -> None:
    first, second = (Writer(tmp_path / "cache", 0, 60) for _ in range(2))
    first.listen(10)
    first.kill()
    second.finish()
    assert sorted(second.reported) == list(range(60))
    check_all(tmp_path / "cache", set(range(60)))


def test_an_open_store_sees_what_another_process_writes(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "cache") as store:
        assert not store.contains(key_of(0))
        Writer(tmp_path / "cache", 0, 5).finish()
        assert all(store.contains(key_of(number)) and same(store.get(key_of(number)), number) for number in range(5))


def test_unfinished_files_of_living_writers_are_left_alone(tmp_path: Path) -> None:
    SampleStore(tmp_path / "cache").close()
    folder = tmp_path / "cache" / "v1" / "tmp"
    host = atomic._HOST
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hour_ago, fresh = time.time() - 3600, time.time()
    kept = {
        f"{os.getpid()}-{host}-{1:032x}.tmp": hour_ago,  # its writer lives
        f"{dead.pid}-{host}-{2:032x}.tmp": fresh,  # perhaps of a container with the same name
        f"{dead.pid}-{'0' * 8}-{3:032x}.tmp": hour_ago,  # of another machine
        "notes.tmp": 1.0,  # not ours
    }
    removed = {f"{dead.pid}-{host}-{4:032x}.tmp": hour_ago, f"{os.getpid()}-{'0' * 8}-{5:032x}.tmp": 1.0}
    for name, moment in {**kept, **removed}.items():
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (moment, moment))
    SampleStore(tmp_path / "cache").close()
    assert {path.name for path in leftovers(tmp_path / "cache")} == set(kept)
