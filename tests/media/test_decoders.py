"""The decoders behind PyAV: the same clips, the same frames; asked only where PyAV cannot read; nothing else opened."""

from __future__ import annotations

import importlib
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from clips import BrokenTruth, ClipTruth, read_frame_number, write_clip
from effort import times
from mp4_boxes import set_rotation
from painted import paint_frame

from wan_fixes.errors import SampleError
from wan_fixes.media import (
    MAX_PIXELS,
    Fit,
    FramePlan,
    decode_clip,
    decode_frames,
    inspect_video,
    opening,
    plan_frames,
    probe,
)
from wan_fixes.media.decoders import CHAIN, decord, pyav, torchcodec
from wan_fixes.media.signatures import container_of

_STAND_INS = {decoder.NAME: decoder for decoder in CHAIN[1:]}


@pytest.fixture(params=_STAND_INS)
def stand_in(request: pytest.FixtureRequest) -> ModuleType:
    """Each decoder that can stand in for PyAV, where it is installed."""
    decoder = _STAND_INS[request.param]
    if not decoder.is_available():
        pytest.skip(f"{request.param} is not installed, or does not work here")
    return decoder


@pytest.fixture
def avi_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyAV that reads AVI alone: FFmpeg itself refuses everything else."""
    monkeypatch.setitem(opening._CONTAINER_OPTIONS, "format_whitelist", "avi")


def _clip(path: Path, count: int = 24, **options) -> Path:
    return write_clip(path, (paint_frame(number, width=96, height=64) for number in range(count)), **options)


def _probe(decoder: ModuleType, path: Path, deadline: float = 30):
    return decoder.probe(path, max_pixels=MAX_PIXELS, deadline=deadline)


def _decode(decoder: ModuleType, path: Path, plan: FramePlan, fit: Fit | None = None) -> np.ndarray:
    return decoder.decode(path, plan, fit=fit, deadline=30, max_pixels=MAX_PIXELS)


def _numbers(clip: np.ndarray) -> list[int | None]:
    return [read_frame_number(picture) for picture in np.moveaxis(clip, 0, -1)]


def _decibels(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    error = np.square(one.astype(float) - other).mean()
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def test_they_measure_what_pyav_measures(stand_in: ModuleType, good_clips: list[ClipTruth]) -> None:
    for truth in good_clips:
        found, known = _probe(stand_in, truth.path), probe(truth.path)
        assert found.decoder == stand_in.NAME and known.decoder == "pyav"
        assert (found.width, found.height) == truth.size and found.format == known.format, truth.path.name
        assert found.frame_times == pytest.approx(truth.frame_times, abs=0.001), truth.path.name
        assert found.fps == pytest.approx(truth.fps, rel=1e-3)
        assert found.is_variable_rate == truth.variable_rate
        assert found.duration == pytest.approx(known.duration, rel=0.02)


def test_they_deliver_the_frames_that_were_planned(stand_in: ModuleType, good_clips: list[ClipTruth]) -> None:
    for truth in good_clips:
        metadata = _probe(stand_in, truth.path)
        for seed in range(times(1, 2)):
            plan = plan_frames(metadata, count=9, fps=16, rng=random.Random(seed))
            clip = _decode(stand_in, truth.path, plan)
            assert clip.dtype == np.uint8 and clip.shape == (3, 9, *truth.size[::-1])
            assert _numbers(clip) == list(plan.indices), truth.path.name


_X264 = {"preset": "veryfast", "crf": "18"}
_MPEG2 = {"encoder": "mpeg2video", "options": {"qscale": "3", "g": "12", "bf": "2"}}
_ODD = {
    "a.ts": {"options": _X264 | {"g": "12"}},
    "a.mpeg": _MPEG2,
    "a.mkv": _MPEG2,
    "a.webm": {"encoder": "libvpx", "options": {"b": "800k", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    "a.wmv": {"encoder": "wmv2", "options": {"qscale": "3"}},
    "a.flv": {"options": _X264},
    "a.avi": {"encoder": "mpeg4", "options": {"qscale": "3", "bf": "2"}},
    "a.mp4": {"options": _X264 | {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:scenecut=0"}},
    "b.mp4": {"options": _X264 | {"g": "24", "intra-refresh": "1"}},
    "c.mp4": {"options": _X264 | {"g": "12"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
}


@pytest.mark.parametrize("name", _ODD)
def test_what_they_cannot_deliver_exactly_they_refuse(stand_in: ModuleType, tmp_path: Path, name: str) -> None:
    path = _clip(tmp_path / name, 60, rate=25, **_ODD[name])
    try:
        metadata = _probe(stand_in, path)
    except SampleError as error:
        assert error.reason and error.path == str(path)
        return
    assert metadata.frame_count == 60
    for seed in range(4):
        plan = plan_frames(metadata, count=9, fps=None, rng=random.Random(seed))
        assert _numbers(_decode(stand_in, path, plan)) == list(plan.indices)


def test_a_seek_that_lands_elsewhere_is_found_by_the_time_stamp_and_mended(tmp_path: Path) -> None:
    """By intra refresh there is one key frame only: torchcodec seeks into the middle, and shows two frames further."""
    if not torchcodec.is_available():
        pytest.skip("torchcodec is not installed, or does not work here")
    path = _clip(tmp_path / "b.mp4", 60, rate=25, **_ODD["b.mp4"])
    metadata = _probe(torchcodec, path)
    plans = [plan_frames(metadata, count=9, fps=None, rng=random.Random(seed)) for seed in range(30)]
    library = importlib.import_module("torchcodec.decoders")
    inside = [list(plan.indices) for plan in plans if plan.indices[-1] < 55]  # at the end it even raises
    bare = [library.VideoDecoder(path).get_frames_at(indices).data.movedim(1, 0).numpy() for indices in inside]
    assert any(_numbers(clip) != indices for clip, indices in zip(bare, inside, strict=True))
    assert all(_numbers(_decode(torchcodec, path, plan)) == list(plan.indices) for plan in plans)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_scaled_and_cropped_they_show_what_pyav_shows(stand_in: ModuleType, tmp_path: Path, degrees: int) -> None:
    path = _clip(tmp_path / "turned.mp4", 9, rate=24)
    set_rotation(path, degrees)
    found, known = _probe(stand_in, path), probe(path)
    assert (found.width, found.height) == (known.width, known.height)
    size = (known.height * 3 // 4, known.width * 3 // 4)
    fit = Fit(size, (2, 3, size[0] - 8, size[1] - 8))
    for wanted in (fit, None):
        clip = _decode(stand_in, path, plan_frames(found, count=9, fps=None), wanted)
        assert _decibels(clip, decode_clip(path, plan_frames(known, count=9, fps=None), fit=wanted)) >= 35


@pytest.mark.parametrize("width", [16, 20, 30, 42, 48, 64, 86, 100, 126, 130, 144, 180, 214])
def test_rows_that_ffmpeg_pads_come_without_their_padding(stand_in: ModuleType, tmp_path: Path, width: int) -> None:
    """How many bytes it adds, to 16, 32 or 64, is the processor's choice."""
    pictures = [np.random.default_rng(3).integers(0, 256, (32, width, 3), np.uint8)] * 2
    path = write_clip(tmp_path / "narrow.mov", pictures, encoder="png", pixel_format="rgb24", options={})
    found, known = _probe(stand_in, path), probe(path)
    clip = _decode(stand_in, path, plan_frames(found, count=1, fps=None))
    assert _decibels(clip, decode_clip(path, plan_frames(known, count=1, fps=None))) >= 35


@pytest.mark.parametrize("degrees", [0, 90])
def test_torchcodec_shows_pixels_square(tmp_path: Path, degrees: int) -> None:
    if not torchcodec.is_available():
        pytest.skip("torchcodec is not installed, or does not work here")
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options=_X264)
        stream.width, stream.height, stream.pix_fmt = 288, 192, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for number in range(9):
            picture = np.ascontiguousarray(paint_frame(number, width=288, height=192))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    set_rotation(path, degrees)
    found, known = _probe(torchcodec, path), probe(path)
    assert (found.width, found.height, found.rotation) == (known.width, known.height, known.rotation)
    assert sorted((found.width, found.height)) == [192, 384]
    clip = _decode(torchcodec, path, plan_frames(found, count=9, fps=None))
    assert _decibels(clip, decode_clip(path, plan_frames(known, count=9, fps=None))) >= 35


def test_frames_can_be_asked_for_in_any_order_and_more_than_once(stand_in: ModuleType, tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4")
    metadata = _probe(stand_in, path)
    indices = (20, 7, 7, 21, 0)
    times = tuple(metadata.frame_times[index] for index in indices)
    stamps = tuple(metadata.timestamps[index] for index in indices) if metadata.timestamps else ()
    plan = FramePlan(times, indices, stamps, stand_in.NAME)
    assert _numbers(_decode(stand_in, path, plan)) == list(indices)


def test_a_clip_that_was_replaced_after_planning_gives_no_other_frames(stand_in: ModuleType, tmp_path: Path) -> None:
    path = _clip(tmp_path / "swapped.mp4", 40, rate=24)
    plan = plan_frames(_probe(stand_in, path), count=9, fps=None)
    _clip(path, 40, rate=25)
    with pytest.raises(SampleError):
        _decode(stand_in, path, plan)
    path.unlink()
    with pytest.raises(SampleError, match="does not exist"):
        _decode(stand_in, path, plan)


def test_mirrored_pictures_are_refused(stand_in: ModuleType, tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4")
    set_rotation(path, 180)
    assert _probe(stand_in, path).frame_count == 24
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 4] = struct.pack(">i", 1 << 16)
    path.write_bytes(content)
    with pytest.raises(SampleError, match="to be mirrored"):
        _probe(stand_in, path)


def test_a_file_that_makes_decord_abort_takes_only_decords_process_with_it(tmp_path: Path) -> None:
    if not decord.is_available():
        pytest.skip("decord is not installed")
    path = _clip(tmp_path / "a.mp4", options=_X264 | {"bf": "0"})
    content = bytearray(path.read_bytes())
    runs = content.index(b"stts") + 4 + 4 + 4  # ISO 14496-12, 8.6.1.2: the first run of frames of one length
    content[runs : runs + 4] = struct.pack(">i", 0x7FFFFFFF)
    path.write_bytes(content)
    with pytest.raises(SampleError, match="its process ended with code"):
        _probe(decord, path)


def test_they_keep_to_the_limits(stand_in: ModuleType, tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4")
    with pytest.raises(SampleError, match="96x64 pixels, more than the limit"):
        stand_in.probe(path, max_pixels=96 * 64 - 1, deadline=30)
    with pytest.raises(SampleError, match="took longer than"):
        _probe(stand_in, path, deadline=0)


@pytest.mark.parametrize("name", ["http:x.mp4", "concat:a|b.mp4", "grüße 🎬 %03d.mp4"])
def test_a_name_is_the_name_of_a_file(stand_in: ModuleType, tmp_path: Path, name: str) -> None:
    if sys.platform == "win32" and set(name) & set(":|"):
        pytest.skip("no such names on Windows")
    path = _clip(tmp_path / "a.mp4").rename(tmp_path / name)
    assert _probe(stand_in, path).frame_count == 24


# The chain


def test_pyav_serves_what_it_can_read_and_nothing_else_is_loaded(tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4")
    program = (
        "import sys; from wan_fixes.media import decode_clip, plan_frames, probe\n"
        "metadata = probe(sys.argv[1]); plan = plan_frames(metadata, count=5, fps=None)\n"
        "assert decode_clip(sys.argv[1], plan).shape == (3, 5, 64, 96)\n"
        "print(metadata.decoder, plan.decoder, sorted({'torch', 'torchcodec', 'decord'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "pyav pyav []", done.stderr


@pytest.mark.usefixtures("avi_alone", "stand_in")
def test_what_pyav_cannot_open_another_serves_and_says_so(tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4")
    with pytest.raises(SampleError, match="no video container that we read"):
        _probe(pyav, path)
    metadata = probe(path)
    assert metadata.decoder in _STAND_INS
    assert len(metadata.warnings) == 1 and f"read by {metadata.decoder}" in metadata.warnings[0]
    plan = plan_frames(metadata, count=9, fps=16)
    assert plan.decoder == metadata.decoder
    fit = Fit((32, 48), (0, 0, 32, 48))
    assert decode_clip(path, plan, fit=fit).shape == (3, 9, 32, 48)
    assert [read_frame_number(picture) for picture in decode_frames(path, plan)] == list(plan.indices)
    verdict = inspect_video(path, count=9, fps=16)
    assert verdict.status == "warning" and verdict.reason == metadata.warnings[0]


@pytest.mark.usefixtures("avi_alone")
def test_where_no_other_is_installed_pyavs_error_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for decoder in (torchcodec, decord):
        monkeypatch.setattr(decoder, "is_available", lambda: False)
    with pytest.raises(SampleError) as caught:
        probe(_clip(tmp_path / "a.mp4"))
    assert caught.value.reason.startswith("no video container that we read") and "nor can" not in caught.value.reason


@pytest.mark.usefixtures("stand_in")
def test_where_all_fail_pyavs_words_come_first_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(b"\x1aE\xdf\xa3\x00" + random.Random(0).randbytes(5000))
    with pytest.raises(SampleError) as caught:
        probe(path)
    asked = [name for name, decoder in _STAND_INS.items() if decoder.is_available()]
    assert caught.value.reason.startswith("no video container that we read")
    assert caught.value.reason.endswith(f"; nor can {' or '.join(asked)} read it")
    assert list(caught.value.context["decoders"]) == asked
    assert caught.value.context.get("damaged") is not False


def test_nobody_else_is_asked_about_what_pyav_found_bad(broken_files: list[BrokenTruth], tmp_path: Path) -> None:
    for broken in broken_files:
        if broken.about == "clip":
            with pytest.raises(SampleError) as caught:
                decode_frames(broken.path, plan_frames(probe(broken.path), count=5, fps=16), deadline=10)
            assert "decoders" not in caught.value.context, broken.kind
    with pytest.raises(SampleError, match="more than the limit") as caught:
        probe(_clip(tmp_path / "a.mp4"), max_pixels=1000)
    assert "decoders" not in caught.value.context


def test_a_plan_of_a_decoder_that_is_gone_says_so(tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4")
    plan = replace(plan_frames(probe(path), count=5, fps=None), decoder="gone")
    with pytest.raises(SampleError, match="measured with gone, which does not work here") as caught:
        decode_clip(path, plan)
    assert caught.value.context == {"damaged": False}


# Scripts that name other files


_CONCAT = "ffconcat version 1.0\nfile '{name}'\nduration 1.5\n"
_HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-VERSION:3\n#EXTINF:1.5,\n{name}\n#EXT-X-ENDLIST\n"
_DASH = (
    '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video"><Representation id="0" '
    'bandwidth="1"><BaseURL>{name}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
_SIGNATURES = (
    b"",
    b"\x1aE\xdf\xa3",
    b"FLV\x01",
    b"RIFFaaaaAVI LIST",
    b"ftyp",
    b"aaaaftypisom",
    b"G" * 188 * 5,
    b"OggS",
)


@pytest.mark.parametrize("script", [_CONCAT, _HLS, _DASH], ids=["concat", "hls", "dash"])
@pytest.mark.parametrize("before", _SIGNATURES)
@pytest.mark.parametrize("after", [b"", b"\x00" * 5000 + b"\x1aE\xdf\xa3"], ids=["text alone", "zeros behind"])
def test_a_script_with_a_signature_around_it_is_no_video(tmp_path: Path, script: str, before: bytes, after: bytes):
    path = tmp_path / "a.mp4"
    text = script.format(name="other.ts").encode()
    path.write_bytes(text + before + after)
    assert container_of(path) is None
    path.write_bytes(before + text + after)
    if script is _DASH or not (before and after):  # the others count as scripts at the very start alone
        assert container_of(path) is None


def _bare(decoder: ModuleType, path: Path) -> int:
    """How many frames the library itself finds."""
    if decoder is decord:
        return len(importlib.import_module("decord").VideoReader(str(path)))
    return len(importlib.import_module("torchcodec.decoders").VideoDecoder(str(path)))


@pytest.mark.parametrize("script", [_CONCAT, _HLS, _DASH], ids=["concat", "hls", "dash"])
@pytest.mark.parametrize("before", _SIGNATURES, ids=repr)
@pytest.mark.parametrize("probe_with", ["stand-in", "chain"])
def test_no_decoder_opens_the_file_that_a_script_names(
    stand_in: ModuleType, tmp_path: Path, script: str, before: bytes, probe_with: str
) -> None:
    other = _clip(tmp_path / "other.ts")
    path = tmp_path / "script.mp4"
    path.write_bytes(before + script.format(name=other.name).encode() + (b"\x00" * 9000 if before else b""))
    if script is _CONCAT and not before:  # the danger is real: the library left alone reads the other file
        assert _bare(stand_in, path) > 0
    measure: Callable[[Path], object] = probe if probe_with == "chain" else lambda at: _probe(stand_in, at)
    with pytest.raises(SampleError):
        measure(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("script", [_CONCAT, _HLS, _DASH], ids=["concat", "hls", "dash"])
def test_no_decoder_waits_for_a_pipe_that_a_script_names(stand_in: ModuleType, tmp_path: Path, script: str) -> None:
    os.mkfifo(tmp_path / "pipe.ts")
    path = tmp_path / "script.mp4"
    path.write_text(script.format(name="pipe.ts"), encoding="utf-8")
    with pytest.raises(SampleError, match="no video container that we read"):
        _probe(stand_in, path)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(SampleError, match="not a regular file"):
        _probe(stand_in, path)


def test_every_container_that_we_write_is_known_by_its_first_bytes(good_clips: list[ClipTruth], tmp_path: Path) -> None:
    clips = [truth.path for truth in good_clips]
    clips += [_clip(tmp_path / name, 60, rate=25, **options) for name, options in _ODD.items()]
    clips += [
        _clip(tmp_path / "a.ogv", encoder="libvpx", options={}),
        _clip(tmp_path / "a.m2ts", options=_X264),
        _clip(tmp_path / "a.nut", options=_X264),
        _clip(tmp_path / "a.ivf", encoder="libvpx", options={}),
        _clip(tmp_path / "a.mxf", rate=25, encoder="mpeg2video", options={"qscale": "3"}),
        _clip(tmp_path / "a.mpg", encoder="mpeg1video", rate=25, options={"qscale": "3"}),
        _clip(tmp_path / "bare.m4v", encoder="mpeg4", options={"qscale": "3"}),
    ]
    for path in clips:
        with av.open(str(path)) as container:
            assert container_of(path) in container.format.name.split(","), path.name
