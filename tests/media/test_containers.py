"""Containers and streams that mislead: hidden frames, missing times, open groups of pictures, late or wrong seeks."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import write_clip
from painted import paint_frame, read_frame_number

from wan_fixes.media import decode_frames, plan_frames, probe

_X264 = {"preset": "veryfast", "crf": "18"}
_OPEN_GROUPS = _X264 | {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}
_FRAMES = 60

_CASES = {
    "transport stream": ("a.ts", {"options": _X264 | {"g": "12"}}),
    "program stream": ("a.mpeg", {"encoder": "mpeg2video", "options": {"qscale": "3", "g": "12", "bf": "2"}}),
    "mpeg2 in mkv": ("a.mkv", {"encoder": "mpeg2video", "options": {"qscale": "3", "g": "12", "bf": "2"}}),
    "vp8 with hidden frames": (
        "a.webm",
        {"encoder": "libvpx", "options": {"b": "800k", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    ),
    "vp9 with hidden frames": (
        "b.webm",
        {"encoder": "libvpx-vp9", "options": {"b": "800k", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    ),
    "wmv": ("a.wmv", {"encoder": "wmv2", "options": {"qscale": "3"}}),
    "flv": ("a.flv", {"options": _X264}),
    "h264 with b-frames in avi": ("a.avi", {"options": _X264 | {"bf": "3"}}),
    "mpeg4 with b-frames in avi": ("b.avi", {"encoder": "mpeg4", "options": {"qscale": "3", "bf": "2"}}),
    "bare mpeg4": ("a.m4v", {"encoder": "mpeg4", "options": {"qscale": "3", "bf": "2"}}),
    "open groups in mp4": ("a.mp4", {"options": _OPEN_GROUPS}),
    "open groups in mkv": ("b.mkv", {"options": _OPEN_GROUPS}),
    "intra refresh": ("b.mp4", {"options": _X264 | {"g": "24", "intra-refresh": "1"}}),
    "hevc with open groups": (
        "c.mp4",
        {
            "encoder": "libx265",
            "options": {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=12"},
        },
    ),
    "fragmented mp4": (
        "d.mp4",
        {"options": _X264 | {"g": "12"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "interlaced": ("e.mp4", {"options": _X264 | {"flags": "+ilme+ildct", "bf": "2", "g": "12"}}),
    "late start": ("f.mp4", {"options": _X264 | {"bf": "3"}, "ticks": range(120, 120 + _FRAMES)}),
    "full-range mjpeg": ("c.avi", {"encoder": "mjpeg", "pixel_format": "yuvj420p", "options": {"qscale": "3"}}),
}


def _make(path: Path, **arguments) -> Path:
    pictures = (paint_frame(number, width=112, height=80) for number in range(_FRAMES))
    return write_clip(path, pictures, **{"rate": 25, **arguments})


def _assert_exact(path: Path, first: int, count: int) -> None:
    """The clip shows the numbers from `first` on, `count` of them, and each window delivers its own."""
    metadata = probe(path)
    assert metadata.frame_count == count
    assert not metadata.is_variable_rate and metadata.fps == pytest.approx(25, rel=1e-3)
    for seed in range(8):
        plan = plan_frames(metadata, count=9, fps=None, rng=random.Random(seed))
        seen = [read_frame_number(picture) for picture in decode_frames(path, plan, deadline=20)]
        assert seen == [first + index for index in plan.indices]


@pytest.mark.parametrize("case", _CASES)
def test_every_window_is_exact(tmp_path: Path, case: str):
    name, arguments = _CASES[case]
    _assert_exact(_make(tmp_path / name, **arguments), 0, _FRAMES)


@pytest.mark.parametrize("options", [_X264 | {"g": "12"}, _OPEN_GROUPS], ids=["closed groups", "open groups"])
def test_frames_that_an_edit_list_hides_do_not_count(tmp_path: Path, options: dict[str, str]):
    """As `ffmpeg -ss 29/25 -c copy` cuts: from the key frame before, with what is too early hidden."""
    source = _make(tmp_path / "whole.mp4", options=options)
    _cut(source, tmp_path / "cut.mp4", Fraction(29, 25), new_zero=Fraction(29, 25))
    _assert_exact(tmp_path / "cut.mp4", 29, _FRAMES - 29)


@pytest.mark.parametrize("new_zero", [Fraction(0), Fraction(24, 25)], ids=["as it was", "key frame at 0"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_frames_that_build_on_what_was_cut_away_do_not_count(tmp_path: Path, suffix: str, new_zero: Fraction):
    """A cut at the key frame of an open group leaves frames that come before it in time and can't be decoded."""
    source = _make(tmp_path / "whole.mp4", options=_OPEN_GROUPS)
    cut = tmp_path / f"cut{suffix}"
    leading = _cut(source, cut, Fraction(26, 25), new_zero=new_zero)
    assert leading > 0
    _assert_exact(cut, 24, _FRAMES - 24)


def _cut(source: Path, target: Path, start: Fraction, *, new_zero: Fraction) -> int:
    """Copy packets from the key frame before `start` on, with `new_zero` as time 0; returns how many lead the key."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        reader.seek(int(start / stream.time_base), stream=stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        key = packets[0].pts
        assert key < start / stream.time_base
        leading = sum(packet.pts < key for packet in packets)
        shift = int(new_zero / stream.time_base)
        for packet in packets:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            writer.mux(packet)
    return leading


def test_a_recording_joined_midway_starts_at_its_first_key_frame(tmp_path: Path):
    whole = _make(tmp_path / "whole.ts", options=_X264 | {"g": "12"}).read_bytes()
    packet = 188
    joined = tmp_path / "joined.ts"
    joined.write_bytes(whole[len(whole) // packet // 3 * packet :])
    with av.open(str(joined)) as container:
        numbers = [read_frame_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert numbers[0] > 0 and numbers[-1] == _FRAMES - 1
    _assert_exact(joined, numbers[0], len(numbers))


def test_frames_are_counted_where_the_file_has_no_times_for_them(tmp_path: Path):
    metadata = probe(_make(tmp_path / "a.avi", options=_X264 | {"bf": "3"}))
    assert metadata.timestamps == () and metadata.frame_count == _FRAMES
    assert metadata.frame_times == pytest.approx([number / 25 for number in range(_FRAMES)])


def test_a_clip_that_changes_its_size_is_delivered_at_its_first_size(tmp_path: Path):
    large = _make(tmp_path / "large.ts", options=_X264 | {"g": "12"})
    small = write_clip(
        tmp_path / "small.ts",
        (paint_frame(number, width=80, height=64) for number in range(_FRAMES, 2 * _FRAMES)),
        rate=25,
        ticks=range(_FRAMES, 2 * _FRAMES),
        options=_X264 | {"g": "12"},
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(large.read_bytes() + small.read_bytes())
    metadata = probe(joined)
    plan = plan_frames(metadata, count=metadata.frame_count, fps=None)
    pictures = decode_frames(joined, plan, deadline=20)
    assert pictures.shape[1:3] == (80, 112)
    assert [read_frame_number(picture) for picture in pictures] == list(range(metadata.frame_count))
