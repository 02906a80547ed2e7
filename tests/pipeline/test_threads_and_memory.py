"""A folder with bad files gives the same in any number of threads, and what takes too much memory leaves the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clips import make_broken_files, make_good_clips, write_clip
from painted import paint_frame

from .cached_folder import FRAMES, numbers_in, train
from .toys import samples_of


@pytest.mark.timeout(300)
def test_any_number_of_threads_gives_the_same_samples_and_the_same_reasons(contexts, tmp_path: Path):
    folder = tmp_path / "clips"
    good = {str(truth.path) for truth in make_good_clips(folder)}
    broken = {str(truth.path): truth for truth in make_broken_files(folder) if truth.about == "clip"}
    outcomes = []
    for threads in (1, 4, 16):
        with contexts.new_files(tmp_path / f"files{threads}") as context:
            trained = train(context, folder, tmp_path / f"cache{threads}", threads)
            skipped = {path: (record.reason, record.fix) for path, record in samples_of(context).items()}
        assert good <= trained.keys() and skipped.keys() == broken.keys()
        assert all(broken[path].reason in reason and fix for path, (reason, fix) in skipped.items())
        assert all(is_in_order(numbers_in(trained[path])) for path in good)
        outcomes.append((trained, skipped))
    (first, reasons), *others = outcomes
    for trained, skipped in others:
        assert trained.keys() == first.keys() and skipped == reasons
        assert all(torch.equal(trained[path], first[path]) for path in first), "the same windows, to the pixel"


def is_in_order(numbers: list[int | None]) -> bool:
    return None not in numbers and len(numbers) == FRAMES and numbers == sorted(numbers)


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of its memory")
def test_a_clip_that_takes_more_memory_than_there_is_is_skipped_and_named_and_the_others_are_trained(tmp_path: Path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(6):
        pictures = (paint_frame(at + 20 * number, width=160, height=120) for at in range(12))
        write_clip(folder / f"small{number}.mp4", pictures, rate=16)
    large = write_clip(folder / "large.mp4", (paint_frame(at, width=2560, height=1440) for at in range(9)), rate=16)
    trained, skipped, _ = run_limited(folder, tmp_path / "enough", 1500)
    assert len(trained) == 7 and skipped == {}

    trained, skipped, _ = run_limited(folder, tmp_path / "little", 250)
    assert skipped.keys() == {str(large)}
    reason, fix = skipped[str(large)]
    assert "memory" in reason and fix
    assert len(trained) == 6 and all(is_in_order(numbers) for numbers in trained.values())


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of its memory")
def test_where_memory_runs_short_fewer_samples_are_made_at_the_same_time_and_none_is_lost(tmp_path: Path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(10):
        pictures = (paint_frame(at + 20 * number, width=1280, height=720) for at in range(12))
        write_clip(folder / f"clip{number}.mp4", pictures, rate=16)
    trained, skipped, said = run_limited(folder, tmp_path / "little", 600, threads=8)
    assert len(trained) == 10 and skipped == {} and "memory ran short" in said
    assert all(is_in_order(numbers) for numbers in trained.values())


def run_limited(
    folder: Path, files: Path, megabytes: int, threads: int = 4
) -> tuple[dict[str, list[int]], dict[str, list[str]], str]:
    """What a process with so much memory beyond Python and torch trains, what it skips, and what it says."""
    files.mkdir()
    tests = Path(__file__).resolve().parent.parent
    paths = os.pathsep.join([str(tests), str(tests.parent), str(tests.parent / "examples"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cached_folder", str(folder), str(files), str(megabytes), str(threads)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    trained, skipped = json.loads(done.stdout.splitlines()[-1])
    return trained, skipped, done.stderr
