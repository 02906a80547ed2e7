"""Several processes that fill one cache: nothing is encoded twice, and one that is killed costs what it had in hand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from .nursery import environment
from .toys import Contexts
from .world import World, concept_over, trained, write_sample

SAMPLES = 12
ALL = Counter(range(1, SAMPLES + 1))


def main(top: Path, name: str) -> None:
    """Cache the samples, writing down what is encoded when it begins; prints what is trained."""
    (top / name).mkdir()
    log = (top / f"{name}.log").open("w", encoding="ascii", buffering=1)

    def slowly(number: int, variation: int) -> None:
        log.write(f"{number}\n")
        time.sleep(0.15)

    contexts = Contexts(top / name)
    world = World(contexts.new(), top / "cache", [concept_over(top / "clips")], image_fault=slowly, threads=2)
    (top / f"{name}.ready").touch()
    while not (top / "go").exists():
        time.sleep(0.01)
    sys.stdout.write(json.dumps(sorted(trained(world.epoch()).elements())) + "\n")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for number in ALL:
        write_sample(tmp_path / "clips", number)
    return tmp_path


def start(top: Path, *names: str) -> list[subprocess.Popen[str]]:
    """Processes that begin at the same moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.test_cache_processes", str(top), name],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for name in names
    ]  # fmt: skip
    deadline = time.monotonic() + 120
    while not all((top / f"{name}.ready").exists() for name in names):
        assert time.monotonic() < deadline and all(process.poll() is None for process in started)
        time.sleep(0.05)
    (top / "go").touch()
    return started


def encoded(top: Path, name: str) -> Counter[int]:
    return Counter(int(line) for line in (top / f"{name}.log").read_text(encoding="ascii").split())


def outcome(process: subprocess.Popen[str]) -> Counter[int]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return Counter(json.loads(output))


@pytest.mark.timeout(300)
def test_two_processes_share_the_work_and_nothing_is_encoded_twice(top: Path):
    one, two = start(top, "one", "two")
    assert outcome(one) == outcome(two) == ALL
    shares = encoded(top, "one"), encoded(top, "two")
    assert shares[0] + shares[1] == ALL and all(shares)


@pytest.mark.timeout(300)
def test_what_a_killed_process_had_in_hand_is_encoded_by_the_other(top: Path):
    one, two = start(top, "one", "two")
    while len(encoded(top, "one")) < 3:
        time.sleep(0.02)
    one.kill()
    one.wait()
    assert outcome(two) == ALL
    again = encoded(top, "one") + encoded(top, "two") - ALL
    assert set(again) <= set(encoded(top, "one")) and again.total() <= 2, "no more than its threads had in hand"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
