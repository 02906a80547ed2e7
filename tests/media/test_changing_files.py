"""Files that change between being measured and being read: an error, or the frames at the planned times."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from media.corpus.making import GROUPS, X264, clip
from painted import read_frame_number

from wan_fixes.errors import SampleError
from wan_fixes.media import decode_frames, inspect_image, load_image, plan_frames, probe


def numbers_in(path: Path, plan) -> list[int | None]:
    return [read_frame_number(picture) for picture in decode_frames(path, plan, deadline=5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return clip(tmp_path / "clip.mp4")


@pytest.mark.parametrize("name", ["clip.mp4", "elsewhere.mp4"])
def test_a_file_that_vanishes_is_said(path: Path, name: str):
    plan = plan_frames(probe(path), count=9, fps=None)
    path.rename(path.with_name(f"gone_{name}"))
    if name == "elsewhere.mp4":
        path.symlink_to(name)
    with pytest.raises(SampleError, match=r"does not exist|a link to") as caught:
        decode_frames(path, plan, deadline=5)
    assert caught.value.path == str(path) and caught.value.fix


def test_a_file_that_becomes_shorter_lacks_the_frames_of_the_plan(path: Path):
    metadata = probe(path)
    late = plan_frames(metadata, count=metadata.frame_count, fps=None)
    clip(path, numbers=range(100, 120))
    with pytest.raises(SampleError, match="cannot be decoded") as caught:
        decode_frames(path, late, deadline=5)
    assert caught.value.fix


def test_of_another_clip_the_frames_at_the_same_times_are_given(path: Path):
    plan = plan_frames(probe(path), count=9, fps=None)
    clip(path, numbers=range(100, 136), options=X264 | {"g": "7", "bf": "0"})
    assert numbers_in(path, plan) == [100 + index for index in plan.indices]


@pytest.mark.parametrize("content", [b"", b"404 Not Found\n" * 20, bytes(4096)], ids=["nothing", "a text", "zeros"])
def test_a_file_that_is_replaced_by_rubbish_is_refused(path: Path, content: bytes):
    plan = plan_frames(probe(path), count=9, fps=None)
    path.write_bytes(content)
    with pytest.raises(SampleError, match=r"empty|text|zero"):
        decode_frames(path, plan, deadline=5)


@pytest.mark.parametrize("suffix", [".mkv", ".flv"])
def test_a_recording_that_goes_on_gives_the_frames_that_were_there(tmp_path: Path, suffix: str):
    whole = clip(tmp_path / f"whole{suffix}", options=GROUPS).read_bytes()
    path = tmp_path / f"growing{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    plan = plan_frames(probe(path), count=9, fps=None)
    path.write_bytes(whole)
    assert numbers_in(path, plan) == list(plan.indices)


def test_an_image_that_vanishes_or_changes_is_told(tmp_path: Path):
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8), "red").save(path)
    assert inspect_image(path).status == "good"
    shutil.copyfile(__file__, path)
    with pytest.raises(SampleError, match="a text file"):
        load_image(path)
    path.unlink()
    with pytest.raises(SampleError, match="does not exist"):
        load_image(path)
