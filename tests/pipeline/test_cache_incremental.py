"""What changes in a large folder costs what changed, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .toys import Contexts
from .world import World, age, concept_over, write_sample


def costs(top: Path, contexts: Contexts, count: int) -> None:
    clips = top / "clips"
    for number in range(count):
        write_sample(clips, number)
    age(clips)

    def made(**settings: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        world = World(contexts.new(), top / "cache", [concept_over(clips)], settings=settings)
        world.pipeline.start_next_epoch()
        return world.encoded()

    everything = [(number, 0) for number in range(count)]
    nothing: list[tuple[int, int]] = []
    assert made() == (everything, everything)
    assert made() == (nothing, nothing)

    write_sample(clips, count)
    assert made() == ([(count, 0)], [(count, 0)])

    for suffix in (".num", ".txt"):
        (clips / f"clip3{suffix}").rename(clips / f"renamed{suffix}")
        shutil.copy(clips / f"clip4{suffix}", clips / f"copied{suffix}")
        os.utime(clips / f"clip5{suffix}")
    assert made() == (nothing, nothing)

    (clips / "clip6.txt").write_text(f"caption {count + 1}", encoding="utf-8")
    assert made() == (nothing, [(count + 1, 0)])

    (clips / "clip7.num").write_text(str(count + 2), encoding="utf-8")
    assert made() == ([(count + 2, 0)], nothing)

    images = {*range(count + 1), count + 2} - {7}
    assert made(target_resolution=128) == ([(number, 0) for number in sorted(images)], nothing)
    assert made() == (nothing, nothing)


def test_a_change_costs_what_changed(tmp_path: Path, contexts: Contexts) -> None:
    costs(tmp_path, contexts, 300)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_change_in_a_folder_of_ten_thousand_costs_what_changed(tmp_path: Path, contexts: Contexts) -> None:
    costs(tmp_path, contexts, 10_000)
