"""Which part of a clip a sample is, and what becomes of one that is too short."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from hypothesis import given
from hypothesis import strategies as st
from painted import paint_frame, read_frame_number

from wan_fixes.errors import SampleError
from wan_fixes.media import VideoMetadata, decode_frames, inspect_video, plan_frames, probe


def clip_of(frames: int, fps: float) -> VideoMetadata:
    times = tuple(number / fps for number in range(frames))
    return VideoMetadata(
        64, 64, fps, frames / fps, frames, "mp4", "h264", False, None, frame_times=times, last_frame_duration=1 / fps
    )


@pytest.mark.parametrize(
    ("window", "indices"),
    [("start", (0, 1, 2, 3, 4)), ("centre", (7, 8, 9, 10, 11)), ("spread", (0, 5, 10, 14, 19))],
)
@pytest.mark.parametrize("rng", [None, random.Random(0)])
def test_a_window_is_where_it_was_asked_for(window, indices, rng) -> None:
    assert plan_frames(clip_of(20, 16), count=5, fps=16, rng=rng, window=window).indices == indices
    if window != "spread":
        assert plan_frames(clip_of(20, 16), count=5, fps=None, rng=rng, window=window).indices == indices


@given(frames=st.integers(2, 60), fps=st.sampled_from([8.0, 16.0, 24.0, 30.0, 60.0]), count=st.integers(2, 81))
def test_frames_spread_over_a_clip_are_its_first_and_its_last_and_evenly_between(frames, fps, count) -> None:
    if frames < count:
        return
    indices = plan_frames(clip_of(frames, fps), count=count, fps=16, window="spread").indices
    assert (indices[0], indices[-1], len(indices)) == (0, frames - 1, count)
    steps = np.diff(indices)
    assert steps.max() - steps.min() <= 1


@given(
    frames=st.integers(2, 40),
    fps=st.sampled_from([8.0, 12.0, 16.0, 24.0, 30.0]),
    count=st.integers(2, 81),
    rate=st.sampled_from([None, 16.0, 24.0]),
    rule=st.sampled_from(["pad", "loop"]),
)
def test_a_rule_for_short_clips_changes_nothing_of_long_ones_and_fills_short_ones(
    frames, fps, count, rate, rule
) -> None:
    metadata = clip_of(frames, fps)
    plan = plan_frames(metadata, count=count, fps=rate, short_clips=rule)
    assert len(plan.indices) == count
    try:
        assert plan_frames(metadata, count=count, fps=rate) == plan
    except SampleError as error:
        assert error.what == "clip is too short"
        assert plan.indices[0] == 0 and set(plan.indices) <= set(range(frames))
        falls = [place for place in range(1, count) if plan.indices[place] < plan.indices[place - 1]]
        assert (falls == [] and plan.indices[-1] == frames - 1) if rule == "pad" else len(falls) >= 1


@pytest.mark.parametrize("rule", ["pad", "loop"])
def test_the_frames_of_a_short_clip_are_those_that_were_planned(tmp_path: Path, rule) -> None:
    path = write_clip(
        tmp_path / "a.mp4", (paint_frame(number, width=96, height=64) for number in range(7)), rate=Fraction(16)
    )
    plan = plan_frames(probe(path), count=17, fps=16, short_clips=rule)
    held = [min(place, 6) for place in range(17)] if rule == "pad" else [place % 7 for place in range(17)]
    assert [read_frame_number(picture) for picture in decode_frames(path, plan, deadline=20)] == held

    verdict = inspect_video(path, count=17, fps=16, short_clips=rule, deadline=20)
    assert verdict.status == "warning"
    assert "7 frames at 16 fps, 17 needed" in verdict.reason and "10 of 17 frames are repeats" in verdict.reason
    assert verdict.fix == "lower frames, or use longer clips"


def test_a_short_clip_is_rejected_with_what_would_help(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mp4", (paint_frame(number, width=96, height=64) for number in range(18)), rate=Fraction(16)
    )
    verdict = inspect_video(path, count=33, fps=16, deadline=20)
    assert (verdict.status, verdict.reason) == ("rejected", "18 frames at 16 fps, 33 needed")
    assert verdict.fix == "lower frames to 17, set short_clips to pad or loop, or use clips longer than 2 s"
