"""A caching that is killed, again and again: no bad entry is accepted, and only what was in hand is encoded again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.errors import CriticalError
from wan_fixes.pipeline import PipelineContext
from wan_fixes.store import SampleStore
from wan_fixes.store.payload import open_entry, read_header, read_item

from .nursery import Nursery
from .toys import Contexts, quick_settings
from .world import Fault, World, are_same, bulky, concept_over, is_same, trained, write_sample

SAMPLES = 24
THREADS = 2
ALL = Counter(range(1, SAMPLES + 1))
CACHES = ("image", "text")


def cache(top: Path, name: str, folder: str = "cache", encode: Fault = bulky, full_disk: str = "stop") -> None:
    """In a child: cache the samples, writing down what is encoded when it begins, and train on them.

    What ends it is written down too.
    """

    def noting(part: str) -> Fault:
        log = log_of(top, name, part).open("w", encoding="ascii", buffering=1)

        def noted(number: int, variation: int) -> Any:
            log.write(f"{number}\n")
            return encode(number, variation)

        return noted

    context = PipelineContext.create(top / "context", settings=quick_settings(full_disk=full_disk))
    world = make_world(context, top, folder, *map(noting, CACHES))
    try:
        assert trained(world.epoch()) == ALL
    except CriticalError as error:
        log_of(top, name, "error").write_text(str(error), encoding="utf-8")
        raise


def make_world(context: PipelineContext, top: Path, folder: str, *encode: Fault) -> World:
    image, text = encode or (bulky, bulky)
    clips = [concept_over(top / "clips")]
    return World(context, top / folder, clips, image_fault=image, text_fault=text, threads=THREADS)


def stores_of(world: World) -> dict[str, SampleStore]:
    return {"image": world.image_cache.store, "text": world.text_cache.store}


def log_of(top: Path, name: str, part: str) -> Path:
    return top / f"{name}.{part}.log"


def begun(top: Path, *names: str) -> dict[str, Counter[int]]:
    """What children began to encode, by cache."""
    found: dict[str, Counter[int]] = {part: Counter() for part in CACHES}
    for part in CACHES:
        for log in (log_of(top, name, part) for name in names):
            found[part].update(map(int, log.read_text(encoding="ascii").split() if log.exists() else ()))
    return found


def wait_for(top: Path, *names: str, count: int) -> None:
    """Until the children have begun so many encodes."""
    deadline = time.monotonic() + 60
    while sum(numbers.total() for numbers in begun(top, *names).values()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


@dataclass
class Fresh:
    """What an encoding without any mishap makes: the epoch's samples, and the entries by cache and key."""

    samples: list[dict[str, Any]]
    entries: dict[str, dict[str, dict[str, Any]]]


@pytest.fixture
def fresh(tmp_path: Path, contexts: Contexts) -> Fresh:
    for number in ALL:
        path = write_sample(tmp_path / "clips", number)
        os.utime(path, (1e9, 1e9))  # of a file so old its content is remembered, so that kills fall in that too
    return made_afresh(tmp_path, contexts.new())


def made_afresh(top: Path, context: PipelineContext, folder: str = "fresh", encode: Fault = bulky) -> Fresh:
    samples = make_world(context, top, folder, encode, encode).epoch()
    return Fresh(samples, {part: entries(top / folder / part) for part in CACHES})


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """What lies in a cache, by key. Opens no store: that would mend its index."""
    found = {}
    for path in folder.glob("samples/v1/entries/*/*"):
        with open_entry(path) as file:
            found[path.stem] = read_item(file, path, read_header(file, path, path.stem), verify=True)
    return found


def unfinished(top: Path, part: str) -> list[Path]:
    return list((top / "cache" / part / "samples" / "v1" / "tmp").iterdir())


def held(top: Path, fresh: Fresh, folder: str = "cache") -> dict[str, set[int]]:
    """The numbers that each cache holds, every entry of which is right."""
    numbers: dict[str, set[int]] = {}
    for part in CACHES:
        found = entries(top / folder / part)
        assert all(is_same(item, fresh.entries[part][key]) for key, item in found.items())
        numbers[part] = {int(next(iter(item.values()))[0]) for item in found.values()}
    return numbers


def check_batches(top: Path, contexts: Contexts, fresh: Fresh, encode: Fault = bulky, missing: int = 0) -> None:
    """A cache, however it came about, is one that nothing ever happened to, but for what is missing in it."""
    world = make_world(contexts.new(), top, "cache", encode, encode)
    assert are_same(world.epoch(), fresh.samples)
    assert sum(map(len, world.encoded())) == missing
    for part, store in stores_of(world).items():
        assert store.verify() == [] and store.notices == [] and store.stats().corrupt == 0
        assert set(store.keys()) == fresh.entries[part].keys()
        store.close()


def kill_until_complete(top: Path, nursery: Nursery, fresh: Fresh, rng: random.Random) -> int:
    """Kill one caching after the other over the same cache; how many kills left something to be made."""
    before: dict[str, set[int]] = {part: set() for part in CACHES}
    fallen = 0
    while missing := 2 * SAMPLES - sum(map(len, before.values())):
        name = f"{fallen}"
        child = nursery.start(cache, top, name)
        wait_for(top, name, count=rng.randint(1, min(missing, 12)))
        time.sleep(rng.random() * 0.01)
        nursery.kill(child)
        assert nursery.outcome(child) in (0, -signal.SIGKILL)
        after = held(top, fresh)
        for part, numbers in begun(top, name).items():
            log_of(top, name, part).unlink(missing_ok=True)
            assert not before[part] & numbers.keys(), "it was there, and was encoded again"
            assert set(numbers.values()) <= {1}
            assert before[part] <= after[part] <= before[part] | numbers.keys()
            assert len(numbers.keys() - after[part]) <= THREADS, "more is lost than was in hand"
        before = after
        fallen += after != {part: ALL.keys() for part in CACHES}
    return fallen


def kill_again_and_again(top: Path, nursery: Nursery, contexts: Contexts, fresh: Fresh, kills: int) -> None:
    rng = random.Random(random.randrange(2**32))
    while kills > 0:
        kills -= kill_until_complete(top, nursery, fresh, rng)
        check_batches(top, contexts, fresh)
        shutil.rmtree(top / "cache")


def kill_one_of_two(top: Path, nursery: Nursery, contexts: Contexts, fresh: Fresh, runs: int) -> None:
    rng = random.Random(random.randrange(2**32))
    for run in range(runs):
        names = f"{run}.one", f"{run}.two"
        one, two = (nursery.start(cache, top, name) for name in names)
        wait_for(top, *names, count=rng.randint(1, 2 * SAMPLES))
        nursery.kill(one)
        assert nursery.outcome(one) in (0, -signal.SIGKILL)
        assert nursery.outcome(two) == 0
        killed, both = begun(top, names[0]), begun(top, *names)
        for part in CACHES:
            again = both[part] - ALL
            assert both[part].keys() == ALL.keys() and again.keys() <= killed[part].keys()
            assert again.total() <= THREADS, "more is encoded twice than the killed one had in hand"
        assert held(top, fresh) == {part: ALL.keys() for part in CACHES}
        check_batches(top, contexts, fresh)
        shutil.rmtree(top / "cache")


def test_kills_cost_what_was_in_hand(tmp_path: Path, nursery: Nursery, contexts: Contexts, fresh: Fresh) -> None:
    kill_again_and_again(tmp_path, nursery, contexts, fresh, kills=30)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_many_kills_cost_what_was_in_hand(tmp_path: Path, nursery: Nursery, contexts: Contexts, fresh: Fresh) -> None:
    kill_again_and_again(tmp_path, nursery, contexts, fresh, kills=500)


def test_a_killed_process_costs_the_other_what_it_had_in_hand(
    tmp_path: Path, nursery: Nursery, contexts: Contexts, fresh: Fresh
) -> None:
    kill_one_of_two(tmp_path, nursery, contexts, fresh, runs=6)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_many_killed_processes_cost_the_others_what_they_had_in_hand(
    tmp_path: Path, nursery: Nursery, contexts: Contexts, fresh: Fresh
) -> None:
    kill_one_of_two(tmp_path, nursery, contexts, fresh, runs=50)


def large(number: int, variation: int) -> Any:
    """So large that both caches together take some three times the small disk."""
    return bulky(number, variation, values=30_000)


@pytest.mark.parametrize("is_one_killed", [False, True])
@pytest.mark.parametrize("full_disk", ["stop", "uncached"])
def test_two_processes_that_fill_up_the_disk_leave_what_is_whole(
    tmp_path: Path,
    small_disk: Path,
    nursery: Nursery,
    contexts: Contexts,
    fresh: Fresh,
    full_disk: str,
    is_one_killed: bool,
) -> None:
    folder = str(small_disk / "cache")
    whole = made_afresh(tmp_path, contexts.new(), "whole", large)
    one, two = (nursery.start(cache, tmp_path, name, folder, large, full_disk) for name in ("one", "two"))
    if is_one_killed:
        wait_for(tmp_path, "one", "two", count=random.randint(1, 8))
        nursery.kill(one)
    outcomes = [nursery.outcome(one), nursery.outcome(two)]
    assert outcomes[1] == (1 if full_disk == "stop" else 0)
    assert outcomes[0] == outcomes[1] or (is_one_killed and outcomes[0] == -signal.SIGKILL)
    for name, outcome in zip(("one", "two"), outcomes, strict=True):
        if outcome == 1:
            said = log_of(tmp_path, name, "error").read_text(encoding="utf-8")
            assert "full" in said and "free some space" in said

    found = held(tmp_path, whole, folder)
    assert 0 < sum(map(len, found.values())) < 2 * SAMPLES
    shutil.copytree(folder, tmp_path / "cache")  # as if there were room now
    left = [path for part in CACHES for path in unfinished(tmp_path, part)]
    assert len(left) <= (THREADS if is_one_killed else 0)
    for path in left:
        os.utime(path, (1e9, 1e9))  # a minute later
    check_batches(tmp_path, contexts, whole, large, missing=2 * SAMPLES - sum(map(len, found.values())))
    assert [unfinished(tmp_path, part) for part in CACHES] == [[], []]
