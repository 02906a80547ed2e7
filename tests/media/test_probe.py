"""Probing: what is said of a clip is exactly what it holds."""

from __future__ import annotations

import math
import pickle
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import ClipTruth, write_clip
from mp4_boxes import set_rotation
from painted import paint_frame, read_frame_number

from wan_fixes.errors import SampleError
from wan_fixes.media import decode_frames, plan_frames, probe


def _pictures(count: int, width: int = 96, height: int = 64):
    return (paint_frame(number, width=width, height=height) for number in range(count))


def test_every_good_clip_is_described_exactly(good_clips: list[ClipTruth]):
    for truth in good_clips:
        metadata = probe(truth.path)
        name = truth.path.name
        assert metadata.frame_count == len(metadata.frame_times) == truth.frame_count, name
        assert np.allclose(metadata.frame_times, truth.frame_times, atol=0.0011), name  # Matroska rounds to 1 ms
        assert metadata.frame_times[0] == 0, name
        assert math.isclose(metadata.fps, truth.fps, rel_tol=1e-3), name
        assert (metadata.width, metadata.height) == truth.size, name
        assert metadata.codec == truth.codec, name
        assert metadata.rotation == truth.rotation, name
        assert metadata.is_variable_rate == truth.variable_rate, name
        assert math.isclose(metadata.duration, metadata.frame_times[-1] + metadata.last_frame_duration), name
        assert (metadata.is_corrupted, metadata.error_details, metadata.warnings) == (False, None, ()), name


def test_metadata_survives_pickling(good_clips: list[ClipTruth]):
    metadata = probe(good_clips[0].path)
    assert pickle.loads(pickle.dumps(metadata)) == metadata


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_read_and_applied(tmp_path: Path, degrees: int):
    path = write_clip(
        tmp_path / "turned.mp4",
        (np.rot90(picture, degrees // 90) for picture in _pictures(8)),
    )
    set_rotation(path, degrees)
    metadata = probe(path)
    assert (metadata.width, metadata.height, metadata.rotation) == (96, 64, degrees)
    pictures = decode_frames(path, plan_frames(metadata, count=8, fps=None), deadline=10)
    assert [read_frame_number(picture) for picture in pictures] == list(range(8))


def test_a_mirrored_picture_is_shown_mirrored(tmp_path: Path):
    path = write_clip(tmp_path / "mirrored.mp4", (picture[:, ::-1] for picture in _pictures(8)))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd", content.index(b"moov")) + 44
    struct.pack_into(">i", content, matrix, -0x10000)
    path.write_bytes(content)
    pictures = decode_frames(path, plan_frames(probe(path), count=8, fps=None), deadline=10)
    assert [read_frame_number(picture) for picture in pictures] == list(range(8))


def test_the_first_stream_of_moving_pictures_is_taken_not_the_cover(tmp_path: Path):
    path = tmp_path / "covered.mp4"
    cover = av.VideoFrame.from_ndarray(paint_frame(200, width=48, height=48), format="rgb24")
    with av.open(str(path), "w") as container:
        art = container.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 48, 48, "yuvj420p"
        art.disposition = type(art.disposition).attached_pic.value
        video = container.add_stream("libx264", rate=16)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        container.mux(art.encode(cover))
        for picture in _pictures(8):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(art.encode(None))
        container.mux(video.encode(None))
    metadata = probe(path)
    assert (metadata.width, metadata.height, metadata.frame_count) == (96, 64, 8)


@pytest.mark.parametrize(
    ("aspect", "size"), [("32:27", (114, 64)), ("8:9", (96, 72)), ("1:1", (96, 64))], ids=["wider", "higher", "square"]
)
@pytest.mark.parametrize("degrees", [0, 90])
def test_pixels_that_are_not_square_are_stretched_as_players_do(tmp_path: Path, aspect: str, size, degrees: int):
    """The aspect is that of one pixel; 96x64 are stored."""
    path = write_clip(tmp_path / "wide.mp4", _pictures(8), options={"preset": "veryfast", "aspect": aspect})
    set_rotation(path, degrees)
    metadata = probe(path)
    shown = size if degrees == 0 else size[::-1]
    assert (metadata.width, metadata.height, metadata.warnings) == (*shown, ())
    pictures = decode_frames(path, plan_frames(metadata, count=8, fps=None), deadline=10)
    assert pictures.shape == (8, shown[1], shown[0], 3)


def test_an_aspect_that_cannot_be_is_passed_over_with_a_warning(tmp_path: Path):
    path = write_clip(tmp_path / "thin.mp4", _pictures(8), options={"preset": "veryfast", "aspect": "6:1"})
    metadata = probe(path)
    assert (metadata.width, metadata.height) == (96, 64)
    (warning,) = metadata.warnings
    assert "taken as square" in warning


def test_a_file_cut_off_after_its_index_gives_the_frames_that_are_there(tmp_path: Path):
    path = write_clip(tmp_path / "cut.mp4", _pictures(48), container_options={"movflags": "+faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.7)])
    metadata = probe(path)
    assert 8 < metadata.frame_count < 48 and not metadata.is_variable_rate
    (warning,) = metadata.warnings
    assert "cut off" in warning and f"{metadata.frame_count} of 48" in warning
    pictures = decode_frames(path, plan_frames(metadata, count=metadata.frame_count, fps=None), deadline=10)
    assert [read_frame_number(picture) for picture in pictures] == list(range(metadata.frame_count))


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded(good_clips: list[ClipTruth]):
    truth = good_clips[0]
    width, height = truth.size
    assert probe(truth.path, max_pixels=width * height).frame_count
    with pytest.raises(SampleError, match=f"{width}x{height} pixels"):
        probe(truth.path, max_pixels=width * height - 1)


@pytest.mark.parametrize(("name", "encoder"), [("a.webm", "libvpx-vp9"), ("a.mov", "png"), ("a.avi", "mpeg4")])
def test_the_limit_also_holds_while_opening(tmp_path: Path, name: str, encoder: str):
    pixel_format = "rgb24" if encoder == "png" else "yuv420p"
    pictures = _pictures(2, width=512, height=512)
    path = write_clip(tmp_path / name, pictures, encoder=encoder, pixel_format=pixel_format, options={})
    with pytest.raises(SampleError, match="more than"):
        probe(path, max_pixels=1000)


def test_a_rate_that_time_stamps_can_only_round_is_recovered(tmp_path: Path):
    rate = Fraction(30000, 1001)
    path = write_clip(tmp_path / "ntsc.mkv", _pictures(20), rate=rate)
    metadata = probe(path)
    assert metadata.fps == pytest.approx(float(rate), rel=1e-6) and not metadata.is_variable_rate


def test_frames_are_counted_where_the_file_has_no_times_for_them(tmp_path: Path):
    """AVI keeps none, and frames of H.264 change places."""
    options = {"preset": "veryfast", "crf": "18", "bf": "3"}
    metadata = probe(write_clip(tmp_path / "a.avi", _pictures(40), rate=25, options=options))
    assert metadata.timestamps == () and metadata.frame_count == 40 and metadata.start_seconds == 0
    assert metadata.frame_times == pytest.approx([number / 25 for number in range(40)])


def test_time_over_is_said(good_clips: list[ClipTruth]):
    with pytest.raises(SampleError, match="took longer than"):
        probe(good_clips[0].path, deadline=0)


def test_nothing_is_printed_about_broken_files(broken_files):
    program = (
        "import sys\n"
        "from wan_fixes.media import inspect_video\n"
        "for path in sys.argv[1:]:\n"
        "    assert inspect_video(path, count=5, fps=16).status == 'rejected', path\n"
    )
    paths = [str(broken.path) for broken in broken_files if broken.about == "clip"]
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_torch_is_not_imported():
    program = "import sys, wan_fixes.media; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
