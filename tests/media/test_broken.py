"""Bad files: each is refused with its reason and a fix, soon, and none makes FFmpeg open anything else."""

from __future__ import annotations

import os
import pickle
import random
import re
import sys
import time
from pathlib import Path

import av
import pytest
from clips import BrokenTruth, write_clip
from painted import paint_frame

from wan_fixes.errors import SampleError
from wan_fixes.media import decode_frames, inspect_video, plan_frames, probe

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


def _clip(path: Path, count: int = 24, **options) -> Path:
    return write_clip(path, (paint_frame(number, width=96, height=64) for number in range(count)), **options)


def _read(path: Path) -> None:
    decode_frames(path, plan_frames(probe(path), count=5, fps=16), deadline=10)


def test_every_broken_clip_is_refused_with_its_reason(broken_files: list[BrokenTruth]):
    clips = [broken for broken in broken_files if broken.about == "clip"]
    assert len(clips) >= 10
    for broken in clips:
        begin = time.monotonic()
        with pytest.raises(SampleError) as caught:
            _read(broken.path)
        assert time.monotonic() - begin < 10, broken.kind
        assert broken.reason in caught.value.reason, broken.kind
        assert caught.value.path == str(broken.path) and caught.value.fix, broken.kind
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), broken.kind


def test_a_clip_with_a_bad_caption_is_itself_good(broken_files: list[BrokenTruth]):
    captions = [broken for broken in broken_files if broken.about == "caption"]
    assert {broken.kind for broken in captions} == {"caption_not_utf8", "caption_empty", "caption_missing"}
    for broken in captions:
        assert inspect_video(broken.path, count=33, fps=16).status == "good"


_SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile '{name}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-VERSION:3\n#EXTINF:1.5,\n{name}\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("kind", _SCRIPTS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mpeg", ".avi"])
def test_a_script_under_a_video_name_opens_no_other_file(tmp_path: Path, kind: str, suffix: str):
    other = _clip(tmp_path / "other.ts")
    script = tmp_path / f"script{suffix}"
    script.write_text(_SCRIPTS[kind].format(name=other.name), encoding="utf-8")
    if kind == "ffconcat":  # the danger is real: FFmpeg left alone reads the other file
        with av.open(str(script)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 24
    with pytest.raises(SampleError, match="a text file that names other files"):
        probe(script)


@posix_only
@pytest.mark.timeout(30)
def test_a_script_that_names_a_pipe_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer for ever
    script = tmp_path / "script.mp4"
    script.write_text("ffconcat version 1.0\nfile 'pipe'\n", encoding="utf-8")
    with pytest.raises(SampleError, match="playlist"):
        probe(script)


@posix_only
@pytest.mark.timeout(30)
def test_pipes_devices_and_folders_are_never_opened(tmp_path: Path):
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    device = tmp_path / "device.mp4"
    device.symlink_to("/dev/zero")
    for path in (pipe, folder, device):
        with pytest.raises(SampleError, match="not a regular file"):
            probe(path)


def test_a_name_that_looks_like_a_url_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http:..mp4", "concat:a.mp4|b.mp4", "cache:x.mp4"):
        if sys.platform == "win32":
            break  # such names can't exist there
        _clip(tmp_path / "plain.mp4").rename(tmp_path / name)
        assert probe(name).frame_count == 24
    with pytest.raises(SampleError, match="does not exist"):
        probe("http://localhost:1/clip.mp4")


@pytest.mark.parametrize("name", ["🎬 клип.mp4", "a" * 200 + ".mp4", "100% [bold]{x}.mp4"])
def test_any_name_that_the_system_allows_works(tmp_path: Path, name: str):
    _clip(tmp_path / "plain.mp4").rename(tmp_path / name)
    _read(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux file names are plain bytes")
def test_a_name_that_is_not_utf8_works(tmp_path: Path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    _clip(tmp_path / "plain.mp4").rename(path)
    _read(Path(path))


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_a_clip_without_permission_is_said(tmp_path: Path):
    path = _clip(tmp_path / "private.mp4")
    path.chmod(0)
    with pytest.raises(SampleError, match="no permission"):
        probe(path)


def test_damage_behind_the_window_does_not_matter(tmp_path: Path):
    path = _clip(tmp_path / "damaged_end.mp4", 48, options={"preset": "veryfast", "crf": "18", "bf": "0", "g": "48"})
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for start, size in spans[30:]:
        for at in range(start + size // 4, start + size):
            content[at] ^= 0x5A
    path.write_bytes(content)
    metadata = probe(path)
    plans = [plan_frames(metadata, count=9, fps=None, rng=random.Random(seed)) for seed in range(200)]
    early = next(plan for plan in plans if plan.indices[-1] < 30)
    late = next(plan for plan in plans if plan.indices[0] > 30)
    pictures = decode_frames(path, early, deadline=10)
    assert len(pictures) == 9
    with pytest.raises(SampleError, match="damaged"):
        decode_frames(path, late, deadline=10)


@pytest.mark.parametrize(("codec", "name"), [("libx264", "clip.mp4"), ("mjpeg", "clip.mkv"), ("mpeg4", "clip.avi")])
def test_the_place_of_damage_is_said_in_bytes_of_the_file(tmp_path: Path, codec: str, name: str):
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = None if codec == "libx264" else {}
    path = _clip(tmp_path / name, 48, encoder=codec, pixel_format=pixel_format, options=options)
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    at, size = spans[20]
    content = bytearray(path.read_bytes())
    content[at + size // 4 : at + size] = bytes(byte ^ 0x5A for byte in content[at + size // 4 : at + size])
    path.write_bytes(content)
    with pytest.raises(SampleError) as caught:
        decode_frames(path, plan_frames(probe(path), count=48, fps=None), deadline=10)
    said = re.search(r"byte (\d+)", caught.value.reason)
    assert said, caught.value.reason
    # A decoder with threads finds it out a few packets later; of MPEG-4, the next packet may be the first to show it.
    nearest = spans[20:27] if "near" in caught.value.reason else spans[18:23]
    assert int(said[1]) in [start for start, _ in nearest]


def test_a_file_that_another_program_holds_half_written_is_refused_or_read_to_its_end(tmp_path: Path):
    whole = _clip(tmp_path / "whole.mkv", 48).read_bytes()
    path = tmp_path / "growing.mkv"
    for part in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        try:
            metadata = probe(path)
            pictures = decode_frames(path, plan_frames(metadata, count=metadata.frame_count, fps=None), deadline=10)
        except SampleError as error:
            assert error.reason and error.fix
        else:
            assert len(pictures) == metadata.frame_count < 48
