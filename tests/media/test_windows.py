"""Planning and decoding: every window is frame-exact, for every clip, at the rates that WAN wants."""

from __future__ import annotations

import itertools
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import ClipTruth, read_frame_number, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import paint_frame

from wan_fixes.errors import SampleError
from wan_fixes.media import FramePlan, VideoMetadata, decode_frames, plan_frames, probe

_NTSC = Fraction(24000, 1001)


def _on_screen(truth: ClipTruth, time: Fraction) -> int:
    """The frame that a player shows at `time`, from the ground truth alone."""
    exact = [Fraction(shown).limit_denominator(100_000) for shown in truth.frame_times]
    return max(number for number, shown in enumerate(exact) if shown <= time)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_window_holds_the_frames_on_screen_at_its_times(good_clips: list[ClipTruth], data: st.DataObject):
    truth = data.draw(st.sampled_from(good_clips))
    fps = data.draw(st.sampled_from([16, 24, None]))
    count = data.draw(st.sampled_from([1, 5, 9, 17, 33]))
    metadata = probe(truth.path)
    plan = plan_frames(metadata, count=count, fps=fps, rng=random.Random(data.draw(st.integers(0, 999))))
    pictures = decode_frames(truth.path, plan, deadline=20)
    seen = [read_frame_number(picture) for picture in pictures]

    assert pictures.dtype == np.uint8 and pictures.shape == (count, truth.size[1], truth.size[0], 3)
    assert seen == list(plan.indices)
    start = seen[0]
    if fps is None:
        assert seen == list(range(start, start + count))
    else:
        ntsc = abs(truth.fps - float(_NTSC)) < 1e-3
        rate = fps * Fraction(1000, 1001) if ntsc else Fraction(fps)
        first = Fraction(truth.frame_times[start]).limit_denominator(100_000)
        assert seen == [_on_screen(truth, first + step / rate) for step in range(count)]
    if fps == truth.fps:
        assert seen == list(range(start, start + count))


def test_film_at_23_976_gives_consecutive_frames_at_24(good_clips: list[ClipTruth]):
    truth = next(truth for truth in good_clips if abs(truth.fps - float(_NTSC)) < 1e-3)
    metadata = probe(truth.path)
    plan = plan_frames(metadata, count=truth.frame_count, fps=24)
    assert list(plan.indices) == list(range(truth.frame_count))


def test_windows_reach_both_ends_of_the_clip(good_clips: list[ClipTruth]):
    for truth in good_clips:
        metadata = probe(truth.path)
        starts, ends = set(), set()
        for seed in range(400):
            plan = plan_frames(metadata, count=17, fps=None, rng=random.Random(seed))
            starts.add(plan.indices[0])
            ends.add(plan.indices[-1])
        assert min(starts) == 0 and max(ends) == truth.frame_count - 1, truth.path.name


def test_without_a_generator_the_window_lies_in_the_middle(good_clips: list[ClipTruth]):
    metadata = probe(good_clips[0].path)
    plan = plan_frames(metadata, count=9, fps=16)
    before, after = plan.indices[0], metadata.frame_count - 1 - plan.indices[-1]
    assert abs(before - after) <= 1


def test_the_longest_window_fits_and_one_frame_more_does_not(good_clips: list[ClipTruth]):
    for truth in good_clips:
        metadata = probe(truth.path)
        for fps in (16, 24, None):
            longest = max(count for count in range(2, 200) if _fits(metadata, count, fps))
            if fps is None or fps == truth.fps:
                assert longest == truth.frame_count, truth.path.name
            with pytest.raises(SampleError) as caught:
                plan_frames(metadata, count=longest + 1, fps=fps)
            at_rate = "" if fps is None else f" at {fps} fps"
            assert caught.value.reason == f"{longest} frames{at_rate}, {longest + 1} needed", truth.path.name
            assert caught.value.fix and caught.value.path == str(truth.path)


def _fits(metadata: VideoMetadata, count: int, fps: float | None) -> bool:
    try:
        plan_frames(metadata, count=count, fps=fps)
    except SampleError:
        return False
    return True


@given(
    rate=st.sampled_from([5, 8, 12, 15, 16, 24, 25, 29.97, 30, 48, 50, 59.94, 60, 120]),
    fps=st.sampled_from([8, 12, 16, 24, 30]),
    count=st.integers(2, 97),
    seed=st.integers(0, 9),
)
def test_plans_run_forward_at_an_even_pace(rate, fps, count, seed):
    times = tuple(number / rate for number in range(400))
    metadata = VideoMetadata(
        64, 64, rate, 400 / rate, 400, "mp4", "h264", False, None, frame_times=times, last_frame_duration=1 / rate
    )
    if not _fits(metadata, count, fps):
        return
    indices = plan_frames(metadata, count=count, fps=fps, rng=random.Random(seed)).indices
    steps = [b - a for a, b in itertools.pairwise(indices)]
    assert min(steps) >= int(rate / fps * 0.999) and max(steps) <= int(rate / fps) + 1


@pytest.mark.parametrize(("count", "fps"), [(0, 16), (-1, None), (5, 0), (5, -1), (5, float("nan"))])
def test_a_count_or_rate_that_is_not_positive_is_a_mistake_of_the_caller(good_clips, count, fps):
    with pytest.raises(ValueError, match="must be positive"):
        plan_frames(probe(good_clips[0].path), count=count, fps=fps)


def test_a_plan_without_time_stamps_is_decoded_all_the_same(good_clips: list[ClipTruth]):
    truth = good_clips[0]
    plan = plan_frames(probe(truth.path), count=5, fps=None)
    bare = FramePlan(times=plan.times, indices=plan.indices)
    assert np.array_equal(decode_frames(truth.path, bare, deadline=10), decode_frames(truth.path, plan, deadline=10))
    beyond = FramePlan(times=(99.0,), indices=(truth.frame_count,))
    with pytest.raises(SampleError, match=f"it has {truth.frame_count} frames"):
        decode_frames(truth.path, beyond, deadline=10)


def test_frames_can_be_asked_for_in_any_order_and_more_than_once(good_clips: list[ClipTruth]):
    for truth in good_clips:
        metadata = probe(truth.path)
        indices = (30, 7, 7, 31, 0)
        plan = FramePlan(
            times=tuple(metadata.frame_times[index] for index in indices),
            indices=indices,
            timestamps=tuple(metadata.timestamps[index] for index in indices),
        )
        pictures = decode_frames(truth.path, plan, deadline=10)
        assert [read_frame_number(picture) for picture in pictures] == list(indices), truth.path.name


def test_threads_that_decode_at_once_get_what_one_gets(good_clips: list[ClipTruth]):
    def numbers(truth: ClipTruth) -> list[int | None]:
        plan = plan_frames(probe(truth.path), count=17, fps=16)
        return [read_frame_number(picture) for picture in decode_frames(truth.path, plan, deadline=60)]

    alone = [numbers(truth) for truth in good_clips]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(numbers, good_clips * 3)) == alone * 3


def test_time_over_while_decoding_is_said(good_clips: list[ClipTruth]):
    plan = plan_frames(probe(good_clips[0].path), count=33, fps=None)
    with pytest.raises(SampleError, match="took longer than"):
        decode_frames(good_clips[0].path, plan, deadline=0)


def test_a_clip_that_vanishes_after_planning_is_said(tmp_path: Path):
    path = write_clip(tmp_path / "gone.mp4", (paint_frame(k, width=64, height=48) for k in range(8)))
    plan = plan_frames(probe(path), count=5, fps=None)
    path.unlink()
    with pytest.raises(SampleError, match="does not exist") as caught:
        decode_frames(path, plan, deadline=10)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_clip_that_was_replaced_after_planning_gives_no_other_frames(tmp_path: Path):
    path = write_clip(tmp_path / "swapped.mp4", (paint_frame(k, width=64, height=48) for k in range(40)), rate=24)
    plan = plan_frames(probe(path), count=9, fps=None)
    write_clip(path, (paint_frame(k, width=64, height=48) for k in range(10)), rate=25)
    with pytest.raises(SampleError, match="cannot be decoded"):
        decode_frames(path, plan, deadline=10)
