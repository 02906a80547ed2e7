"""Chunks: whole windows that follow one another through a clip, none of its sampled frames twice, none left out."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from clips import write_clip
from hypothesis import given
from hypothesis import strategies as st
from painted import paint_frame, read_frame_number

from wan_fixes.errors import SampleError
from wan_fixes.media import VideoMetadata, count_chunks, decode_frames, inspect_video, plan_frames, probe, verdict

CLIP_RATES = st.sampled_from([8.0, 12.0, 16.0, 24.0, 24000 / 1001, 25.0, 30.0, 60.0])
RATES = st.sampled_from([None, 16.0, 24.0])


def clip_at(times: list[float], last: float) -> VideoMetadata:
    duration = times[-1] + last
    return VideoMetadata(
        64, 64, len(times) / duration, duration, len(times), "mp4", "h264", False, None,
        frame_times=tuple(times), last_frame_duration=last, is_variable_rate=True,
    )  # fmt: skip


def clip_of(frames: int, fps: float) -> VideoMetadata:
    return clip_at([number / fps for number in range(frames)], 1 / fps)


def cut(metadata: VideoMetadata, seconds: float) -> VideoMetadata:
    """The clip without its first `seconds`: the frame that is on screen then is shown for what is left of its time."""
    first = bisect.bisect_right(metadata.frame_times, seconds + 1e-6) - 1
    times = [0.0, *(time - seconds for time in metadata.frame_times[first + 1 :])]
    return replace(metadata, frame_times=tuple(times), frame_count=len(times), duration=metadata.duration - seconds)


def chunks_of(metadata: VideoMetadata, count: int, fps: float | None) -> list[tuple[int, ...]]:
    return [
        plan_frames(metadata, count=count, fps=fps, window="chunks", chunk=number).indices
        for number in range(count_chunks(metadata, count=count, fps=fps))
    ]


@given(gaps=st.lists(st.integers(8, 200), min_size=2, max_size=150), count=st.integers(1, 33), fps=RATES)
def test_the_chunks_are_the_sampled_frames_from_the_first_on_without_a_gap_or_an_overlap(gaps, count, fps) -> None:
    times = [0.0, *itertools.accumulate(gap / 1000 for gap in gaps)]
    metadata = clip_at(times[:-1], gaps[-1] / 1000)
    chunks = chunks_of(metadata, count, fps) if _fits(metadata, count, fps) else []
    frames = [index for chunk in chunks for index in chunk]
    assert all(len(chunk) == count for chunk in chunks)
    if frames:
        assert tuple(frames) == plan_frames(metadata, count=len(frames), fps=fps, window="start").indices
    assert not _fits(metadata, len(frames) + count, fps), "one more whole window would have fitted"


def _fits(metadata: VideoMetadata, count: int, fps: float | None) -> bool:
    try:
        plan_frames(metadata, count=count, fps=fps, window="start")
    except SampleError:
        return False
    return True


@given(frames=st.integers(2, 300), rate=CLIP_RATES, count=st.integers(2, 33), fps=RATES)
def test_a_chunk_is_what_the_start_of_the_clip_would_be_if_it_were_cut_there(frames, rate, count, fps) -> None:
    metadata = clip_of(frames, rate)
    if not _fits(metadata, count, fps):
        return
    sampled = rate if fps is None else fps * (1000 / 1001 if abs(rate - 24000 / 1001) < 1e-6 else 1)
    for number, chunk in enumerate(chunks_of(metadata, count, fps)):
        rest = cut(metadata, number * count / sampled)
        first = metadata.frame_count - rest.frame_count
        if rest.frame_count == 1:  # which counts as no clip
            assert set(chunk) == {first}
            continue
        start = plan_frames(replace(rest, fps=metadata.fps), count=count, fps=fps, window="start").indices
        assert chunk == tuple(first + index for index in start)


@given(frames=st.integers(2, 200), count=st.integers(1, 33))
def test_at_a_clips_own_rate_no_frame_is_in_two_chunks(frames, count) -> None:
    for fps in (None, 24.0):
        chunks = chunks_of(clip_of(frames, 24.0), count, fps) if frames >= count else []
        assert [index for chunk in chunks for index in chunk] == list(range(frames // count * count))


@pytest.mark.parametrize(("rule", "rest"), [("pad", [6] * 10), ("loop", [0, 1, 2, 3, 4, 5, 6, 0, 1, 2])])
def test_a_clip_shorter_than_a_window_is_one_chunk_by_the_rule_for_short_clips(rule, rest) -> None:
    metadata = clip_of(7, 16)
    assert count_chunks(metadata, count=17, fps=16) == 1
    plan = plan_frames(metadata, count=17, fps=16, window="chunks", short_clips=rule)
    assert plan.indices == (*range(7), *rest)
    with pytest.raises(SampleError, match="7 frames at 16 fps, 17 needed"):
        plan_frames(metadata, count=17, fps=16, window="chunks")


def test_a_chunk_that_is_not_there_any_more_is_said() -> None:
    metadata = clip_of(20, 16)
    assert count_chunks(metadata, count=9, fps=16) == 2
    with pytest.raises(SampleError, match="20 frames at 16 fps, 27 needed for its chunk 3"):
        plan_frames(metadata, count=9, fps=16, window="chunks", chunk=2, short_clips="pad")


@pytest.mark.parametrize(("count", "fps"), [(0, 16), (5, 0)])
def test_counting_chunks_of_nothing_is_a_mistake_of_the_caller(count, fps) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        count_chunks(clip_of(20, 16), count=count, fps=fps)


def test_the_frames_of_every_chunk_are_those_that_are_painted_there(tmp_path: Path) -> None:
    pictures = (paint_frame(number, width=96, height=64) for number in range(60))
    path = write_clip(tmp_path / "a.mp4", pictures, rate=Fraction(24))
    metadata = probe(path)
    assert count_chunks(metadata, count=9, fps=16) == 4
    for chunk in range(4):
        plan = plan_frames(metadata, count=9, fps=16, window="chunks", chunk=chunk)
        shown = [int(Fraction(24, 16) * step) for step in range(9 * chunk, 9 * chunk + 9)]
        assert [read_frame_number(picture) for picture in decode_frames(path, plan, deadline=20)] == shown


def test_the_middle_chunk_is_looked_at_to_judge_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = (paint_frame(number, width=96, height=64) for number in range(60))
    path = write_clip(tmp_path / "a.mp4", pictures, rate=Fraction(16))
    looked_at: list[tuple[int, ...]] = []
    decode = verdict.decode_frames
    monkeypatch.setattr(
        verdict,
        "decode_frames",
        lambda path, plan, **options: looked_at.append(plan.indices) or decode(path, plan, **options),
    )
    assert inspect_video(path, count=9, fps=16, window="chunks", deadline=20).status == "good"
    assert looked_at == [(27, 31, 35)], "of six chunks the fourth"
    assert inspect_video(path, count=81, fps=16, window="chunks", deadline=20).status == "rejected"
