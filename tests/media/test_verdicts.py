"""Verdicts: what `wan check` says of each file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clips import BrokenTruth, ClipTruth, write_clip
from painted import paint_frame

from wan_fixes.media import inspect_image, inspect_video


@pytest.mark.parametrize(("count", "fps"), [(33, 16), (33, 24), (9, None)])
def test_good_clips_are_good(good_clips: list[ClipTruth], count: int, fps: int | None):
    for truth in good_clips:
        verdict = inspect_video(truth.path, count=count, fps=fps)
        repeats = fps is not None and (fps > truth.fps * 1.01 or truth.variable_rate)
        assert verdict.status in (("good", "warning") if repeats else ("good",)), verdict
        assert verdict.path == os.fspath(truth.path) and verdict.metadata.frame_count == truth.frame_count


def test_broken_clips_are_rejected_with_reason_and_fix(broken_files: list[BrokenTruth]):
    for broken in broken_files:
        if broken.about == "clip":
            verdict = inspect_video(broken.path, count=9, fps=16)
            assert verdict.status == "rejected" and broken.reason in verdict.reason and verdict.fix, broken.kind


def test_a_slow_clip_is_used_with_a_warning_about_repeats(tmp_path: Path):
    slow = write_clip(tmp_path / "slow.mp4", (paint_frame(k, width=64, height=48) for k in range(16)), rate=8)
    verdict = inspect_video(slow, count=17, fps=16)
    assert verdict.status == "warning" and "8 of 17 frames are repeats" in verdict.reason
    assert verdict.fix == "use a source of 16 frames per second or more"


def test_images_get_verdicts_too(tmp_path: Path):
    from PIL import Image

    Image.fromarray(paint_frame(1, width=64, height=48)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not a picture", encoding="utf-8")
    assert inspect_image(tmp_path / "a.png").status == "good"
    verdict = inspect_image(tmp_path / "b.png")
    assert verdict.status == "rejected" and "text" in verdict.reason and verdict.fix


def test_time_over_is_a_verdict_too(good_clips: list[ClipTruth]):
    verdict = inspect_video(good_clips[0].path, count=5, fps=16, deadline=0)
    assert verdict.status == "rejected" and "took longer" in verdict.reason
