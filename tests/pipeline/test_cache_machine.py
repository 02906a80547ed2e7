"""Whatever happens to files, captions, entries and the index between two starts: batches as if all were encoded afresh.

And nothing is encoded that a sound entry holds.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from safetensors import SafetensorError
from safetensors.torch import load

from wan_fixes.store import SampleStore

from .toys import Contexts
from .world import World, concept_over, number_of_text, write_sample

NUMBERS = st.integers(0, 9)
PLACES = st.integers(0, 999)
DAMAGE = ("flip", "cut", "empty", "zeros", "gone", "foreign", "swap", "folder")


class CacheMachine(RuleBasedStateMachine):
    """A folder of clips and captions that changes, and a training that starts now and then on its cache."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="cache-machine-"))
        self.clips = self.top / "clips"
        self.contexts = Contexts(self.top)
        #: Number in the file and in the caption, by name.
        self.files: dict[str, tuple[int, int]] = {}
        #: What a sound entry is known to hold: numbers, by cache.
        self.sound: dict[str, set[int]] = {"image": set(), "text": set()}
        self.moment = time.time_ns() - 10**15
        self.names = (f"clip{number:03}" for number in range(1000))

    def teardown(self) -> None:
        self.contexts.close()
        shutil.rmtree(self.top)

    @initialize(number=NUMBERS)
    def begin(self, number: int) -> None:
        self.add(number, number)

    @rule(number=NUMBERS, caption=NUMBERS)
    def add(self, number: int, caption: int) -> None:
        self.write(next(self.names), number, caption)

    @precondition(lambda self: len(self.files) > 1)
    @rule(place=PLACES)
    def remove(self, place: int) -> None:
        name = self.pick(place)
        for path in self.paths(name):
            path.unlink()
        del self.files[name]

    @rule(place=PLACES, copy=st.booleans())
    def rename_or_copy(self, place: int, copy: bool) -> None:
        name, other = self.pick(place), next(self.names)
        for source, target in zip(self.paths(name), self.paths(other), strict=True):
            (shutil.copy if copy else shutil.move)(source, target)
        self.files[other] = self.files[name] if copy else self.files.pop(name)

    @rule(place=PLACES)
    def touch(self, place: int) -> None:
        for path in self.paths(self.pick(place)):
            path.touch()

    @rule(place=PLACES, number=NUMBERS)
    def edit_clip(self, place: int, number: int) -> None:
        name = self.pick(place)
        self.write(name, number, self.files[name][1])

    @rule(place=PLACES, caption=NUMBERS)
    def edit_caption(self, place: int, caption: int) -> None:
        name = self.pick(place)
        self.write(name, self.files[name][0], caption)

    @rule(cache=st.sampled_from(["image", "text"]), place=PLACES, how=st.sampled_from(DAMAGE))
    def damage(self, cache: str, place: int, how: str) -> None:
        found = sorted(self.store(cache).glob("v1/entries/*/*.safetensors"))
        entries = [path for path in found if path.is_file() and path.stat().st_size]
        if not entries:
            return
        path = entries[place % len(entries)]
        self.forget(cache, path)
        content = bytearray(path.read_bytes())
        if how == "flip":
            content[place % len(content)] ^= 1 + place % 255
            path.write_bytes(content)
        elif how == "cut":
            path.write_bytes(content[: place % len(content)])
        elif how == "zeros":
            path.write_bytes(bytes(len(content)))
        elif how == "foreign":
            path.write_bytes(random.Random(place).randbytes(len(content)))
        elif how == "swap":
            other = entries[(place + 1) % len(entries)]
            if other == path:
                return
            self.forget(cache, other)
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
        else:
            path.unlink()
            if how == "folder":
                path.mkdir()
            elif how == "empty":
                path.touch()

    @rule(cache=st.sampled_from(["image", "text"]), how=st.sampled_from(["gone", "zeros", "rows", "remake"]))
    def damage_index(self, cache: str, how: str) -> None:
        """What a kill or a disk may leave of the index: the entries lose nothing by it."""
        index = self.store(cache) / "v1" / "index.sqlite"
        if not index.exists():
            return
        if how == "gone":
            for path in index.parent.glob("index.sqlite*"):
                path.unlink()
        elif how == "zeros":
            index.write_bytes(bytes(index.stat().st_size))
        else:
            with SampleStore(self.store(cache)) as store:
                if how == "rows":
                    for key in store.keys()[::2]:
                        store._index.remove(key)
                else:
                    store.rebuild_index()

    @rule(threads=st.sampled_from([1, 3]), stop_after=st.none() | st.integers(0, 3))
    def train(self, threads: int, stop_after: int | None) -> None:
        """An epoch, or a caching that ends in the middle of it."""
        begun: list[int] = []

        def fault(number: int, variation: int) -> Any:
            begun.append(number)
            if stop_after is not None and len(begun) > stop_after:
                raise KeyboardInterrupt
            return None

        with self.contexts.new_files(self.top / "files") as context:
            world = World(
                context, self.top / "cache", [concept_over(self.clips)], image_fault=fault, threads=threads, guards=True
            )
            try:
                samples = world.epoch()
            except KeyboardInterrupt:
                samples = None
            images, texts = world.encoded()
        encoded = {"image": Counter(number for number, _ in images), "text": Counter(number for number, _ in texts)}
        for cache, place in (("image", 0), ("text", 1)):
            needed = {numbers[place] for numbers in self.files.values()}
            assert encoded[cache].keys() <= needed - self.sound[cache], "a sound entry was made again"
            assert set(encoded[cache].values()) <= {1}, "two names of one content, and it was encoded twice"
        if samples is None:
            return
        seen = Counter((Path(s["image_path"]).name, int(s["latent_image"][0]), int(s["hidden"][0])) for s in samples)
        assert seen == Counter((f"{name}.num", *numbers) for name, numbers in self.files.items())
        assert all(number_of_text(sample["prompt"]) == int(sample["hidden"][0]) for sample in samples)
        for cache, place in (("image", 0), ("text", 1)):
            self.sound[cache] |= {numbers[place] for numbers in self.files.values()}

    @invariant()
    def no_file_of_the_user_is_touched(self) -> None:
        for name, numbers in self.files.items():
            clip, caption = self.paths(name)
            assert (clip.read_text(), caption.read_text()) == (str(numbers[0]), f"caption {numbers[1]}")

    def forget(self, cache: str, path: Path) -> None:
        """An entry is about to be damaged: it no longer counts as sound."""
        with contextlib.suppress(SafetensorError):  # it was damaged before
            tensors = load(path.read_bytes())
            self.sound[cache].discard(int(next(iter(tensors.values()))[0]))

    def write(self, name: str, number: int, caption: int) -> None:
        write_sample(self.clips, number, name, f"caption {caption}")
        self.settle(name)
        self.files[name] = number, caption

    def settle(self, name: str) -> None:
        """As after some time: what was just written is not remembered by its time. Half of the files stay young."""
        self.moment += 1_000_000_000
        for path in self.paths(name):
            if self.moment // 1_000_000_000 % 2:
                os.utime(path, ns=(self.moment, self.moment))

    def pick(self, place: int) -> str:
        names = sorted(self.files)
        return names[place % len(names)]

    def paths(self, name: str) -> tuple[Path, Path]:
        return self.clips / f"{name}.num", self.clips / f"{name}.txt"

    def store(self, cache: str) -> Path:
        return self.top / "cache" / cache / "samples"


_LIMITS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def test_batches_are_as_if_all_were_encoded_afresh() -> None:
    run_state_machine_as_test(CacheMachine, settings=settings(max_examples=25, stateful_step_count=15, **_LIMITS))


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_batches_are_as_if_all_were_encoded_afresh_many_times() -> None:
    run_state_machine_as_test(CacheMachine, settings=settings(max_examples=200, stateful_step_count=30, **_LIMITS))
