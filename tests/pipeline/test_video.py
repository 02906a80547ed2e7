"""Clips through the pipeline: exactly the frames of the plan, and a reason for every clip that cannot serve."""

from __future__ import annotations

import bisect
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clips import make_broken_files, make_good_clips, write_clip
from painted import paint_frame, read_frame_number

from wan_fixes.errors import SampleError
from wan_fixes.media import VIDEO_EXTENSIONS, FramePlan, MediaReader
from wan_fixes.pipeline import (
    RobustVideoLoader,
    SafeInlineAspectBatchSorting,
    SafeVariationSorting,
    SafeVideoFrameSampler,
)
from wan_fixes.pipeline.fingerprint import read_recipe
from wan_fixes.store import make_key

from .toys import Collector, RandomAccess, concept_of, output, samples_of, started
from .world import make_pipeline

FRAMES = 17


@pytest.fixture(scope="session")
def good_clips(tmp_path_factory):
    return make_good_clips(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def broken_files(tmp_path_factory):
    return make_broken_files(tmp_path_factory.mktemp("broken"))


def loading(context, *, fps=16.0, extensions=VIDEO_EXTENSIONS, plan=True):
    """Sampler and loader as the rewrite table puts them in place of the stock loader."""
    sampler = SafeVideoFrameSampler("image_path", "settings.frames", "plan", fps, extensions, context=context)
    loader = RobustVideoLoader(
        "image_path", "settings.frames", "image", -1.0, 1.0, fps, extensions,
        context=context, frame_plan_in_name="plan" if plan else None,
    )  # fmt: skip
    return [sampler, loader] if plan else [loader]


def settings_of(frames=FRAMES):
    return RandomAccess(
        lambda module, variation, index, name: {"settings": {"frames": str(frames)}}, ("settings",), "concept"
    )


def loaded(context, paths, *, frames=FRAMES, **options):
    paths = [str(path) for path in paths]
    return started(Collector([concept_of()] * len(paths), paths), settings_of(frames), *loading(context, **options))


def numbers_in(video):
    """The frame numbers painted into `[C, F, H, W]`."""
    return [read_frame_number(video[:, at].permute(1, 2, 0).numpy()) for at in range(video.shape[1])]


def shown(truth, first, fps, count):
    """Numbers of the frames on screen at `count` times `1 / fps` apart, the first at that of frame `first`."""
    if "ntsc" in truth.path.name:
        fps = fps * 1000 / 1001  # sampled at the NTSC sibling of the rate
    tolerance = 0.05 / truth.fps
    start = truth.frame_times[first] + tolerance
    return [bisect.bisect_right(truth.frame_times, start + step / fps) - 1 for step in range(count)]


# The frames are the right ones


@pytest.mark.parametrize("fps", [16.0, 24.0])
def test_every_frame_is_the_one_on_screen_at_its_time(context, good_clips, fps):
    reader = loaded(context, [truth.path for truth in good_clips], fps=fps)
    for index, truth in enumerate(good_clips):
        for variation in range(2):
            video = reader.read("image", index, variation)
            assert video.shape == (3, FRAMES, truth.size[1], truth.size[0]), truth.path.name
            assert video.dtype == torch.float32
            assert -1 <= video.min() < -0.5 and 0.5 < video.max() <= 1
            numbers = numbers_in(video)
            assert numbers == shown(truth, numbers[0], fps, FRAMES), truth.path.name


def test_without_a_rate_frames_follow_one_another(context, good_clips):
    reader = loaded(context, [truth.path for truth in good_clips], fps=None)
    for index, truth in enumerate(good_clips):
        numbers = numbers_in(reader.read("image", index))
        assert numbers == list(range(numbers[0], numbers[0] + FRAMES)), truth.path.name


def test_a_loader_without_a_sampler_plans_the_same(context, contexts, good_clips):
    paths = [truth.path for truth in good_clips[:4]]
    with_plan, without = loaded(context, paths), loaded(contexts.new(), paths, plan=False)
    for index in range(4):
        assert torch.equal(with_plan.read("image", index, 1), without.read("image", index, 1))


def test_windows_hang_on_content_and_variation_and_not_on_name_or_place(contexts, good_clips, tmp_path):
    def first_frames(paths):
        reader = loaded(contexts.new(), paths)
        return [
            [reader.read("plan", index, variation).indices[0] for variation in range(6)] for index in range(len(paths))
        ]

    paths = [truth.path for truth in good_clips[:3]]
    before = first_frames(paths)
    assert all(len(set(windows)) > 1 for windows in before), "variations have windows of their own"
    copy = tmp_path / "a copy.mp4"
    shutil.copyfile(paths[0], copy)
    assert first_frames([*reversed(paths), copy]) == [*reversed(before), before[0]]


def test_what_is_no_video_by_its_name_is_somebody_elses(context, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    reader = loaded(context, [tmp_path / "a.png"])
    assert reader.read("image", 0) is None
    assert reader.read("plan", 0) is None
    assert samples_of(context) == {}


def test_the_host_says_what_a_video_is(context, good_clips, tmp_path):
    odd = tmp_path / "a.MPG"
    shutil.copyfile(good_clips[0].path, odd)
    assert loaded(context, [odd]).read("image", 0) is None
    reader = loaded(context, [odd], extensions={".mpg"})
    assert isinstance(reader.read("plan", 0), FramePlan)
    assert numbers_in(reader.read("image", 0))


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16])
def test_values_are_scaled_as_mgds_scales_them(context, good_clips, dtype):
    loader = RobustVideoLoader(range_min=-1.0, range_max=1.0, dtype=dtype, context=context)
    video = loader.load_video_safe(str(good_clips[0].path), 5)
    plain = RobustVideoLoader(range_min=0.0, range_max=255.0, context=context)
    bytes_ = plain.load_video_safe(str(good_clips[0].path), 5).round().to(torch.uint8)
    assert video.dtype == (dtype or torch.float32)
    assert torch.equal(video, bytes_.to(dtype or torch.float32) / 255 * 2 + -1)


# Clips that cannot serve


def test_every_broken_clip_is_left_out_with_its_reason_before_or_while_it_is_read(contexts, broken_files, tmp_path):
    broken = [truth for truth in broken_files if truth.about == "clip"]
    with contexts.new_files(tmp_path / "files") as context:
        paths = [str(truth.path) for truth in broken]
        epoch(context, paths, expect_nothing=True)
        records = samples_of(context)
        assert set(records) == set(paths)
        for truth in broken:
            record = records[str(truth.path)]
            assert truth.reason in record.reason, truth.kind
            assert record.fix, truth.kind


def epoch(context, paths, *, frames=9, expect_nothing=False):
    """The paths that an epoch without caching trains."""
    from wan_fixes.errors import NothingUsableError

    pipeline = make_pipeline(
        [],
        [
            Collector([concept_of()] * len(paths), [str(path) for path in paths]),
            settings_of(frames),
            *loading(context),
            RandomAccess(lambda module, variation, index, name: {"size": (1, 64)}, ("size",), "image_path"),
            SafeVariationSorting(["image", "image_path", "concept", "size"], context=context),
            SafeInlineAspectBatchSorting("size", ["image_path", "image", "concept"], 1, context=context),
            output("image_path", "image"),
        ],
        {},
    )
    pipeline.start_next_epoch()
    if expect_nothing:
        with pytest.raises(NothingUsableError):
            list(pipeline)
        return []
    return [sample["image_path"] for sample in pipeline]


def clip(path, frames=20, size=(64, 48)):
    return write_clip(path, (paint_frame(number, width=size[0], height=size[1]) for number in range(frames)), rate=16)


def test_which_decoder_measured_a_clip_is_remembered_and_it_is_measured_again_without_that(contexts, tmp_path):
    path = str(clip(tmp_path / "a.mp4"))
    with contexts.new_files(tmp_path / "files") as context:
        known = context.probe(path)
        content = context.content_id(path)
        for decoder in ("pyav", "gone"):
            context.probe_memory.put(content, replace(known, decoder=decoder, width=2))
            assert context.probe_memory.get(content, path).decoder == decoder
            assert context.probe(path).width == {"pyav": 2, "gone": known.width}[decoder]
        assert context.probe_memory.get(content, path) == known


def test_a_damaged_clip_is_in_quarantine_until_it_changes(contexts, broken_files, tmp_path, monkeypatch):
    [damaged] = [truth.path for truth in broken_files if truth.kind == "flipped_bytes"]
    paths = [tmp_path / "damaged.mp4", clip(tmp_path / "good.mp4")]
    shutil.copyfile(damaged, paths[0])
    with contexts.new_files(tmp_path / "files") as context:
        assert epoch(context, paths) == [str(paths[1])]
        [entry] = context.quarantine.entries()
        assert entry.path == str(paths[0])
        assert "damaged" in entry.reason

    measured = []
    probe = MediaReader.probe
    monkeypatch.setattr(MediaReader, "probe", lambda reader, path: measured.append(path) or probe(reader, path))
    with contexts.new_files(tmp_path / "files") as context:
        assert epoch(context, paths) == [str(paths[1])]
        record = samples_of(context)[str(paths[0])]
        assert record.module == "quarantine"
        assert "damaged" in record.reason
        assert measured == [], "neither file is looked at again"

    paths[0].unlink()
    clip(paths[0], frames=30)
    with contexts.new_files(tmp_path / "files") as context:
        assert sorted(epoch(context, paths)) == sorted(map(str, paths))
        assert measured == [str(paths[0])]


def test_a_copy_of_a_damaged_clip_is_known_by_its_content(contexts, broken_files, tmp_path):
    [damaged] = [truth.path for truth in broken_files if truth.kind == "zeroed_header"]
    with contexts.new_files(tmp_path / "files") as context:
        epoch(context, [damaged], expect_nothing=True)
    shutil.copyfile(damaged, tmp_path / "copy.mp4")
    with contexts.new_files(tmp_path / "files") as context:
        epoch(context, [tmp_path / "copy.mp4"], expect_nothing=True)
        assert samples_of(context)[str(tmp_path / "copy.mp4")].module == "quarantine"


def test_what_hangs_on_the_settings_puts_no_clip_into_quarantine(contexts, tmp_path):
    path = clip(tmp_path / "a.mp4")
    with contexts.new_files(tmp_path / "files", max_pixels_per_frame=64 * 48 - 1) as context:
        epoch(context, [path], expect_nothing=True)
        assert "64x48" in samples_of(context)[str(path)].reason
        assert context.quarantine.entries() == []
    with contexts.new_files(tmp_path / "files") as context:
        epoch(context, [path], frames=21, expect_nothing=True)
        assert "20 frames at 16 fps, 21 needed" in samples_of(context)[str(path)].reason
        assert context.quarantine.entries() == []
    with contexts.new_files(tmp_path / "files") as context:
        assert epoch(context, [path]) == [str(path)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"short_clips": "pad"}, [*range(20), 19, 19, 19, 19, 19]),
        ({"short_clips": "loop"}, [*range(20), *range(5)]),
    ],
)
def test_a_short_clip_is_filled_up_where_the_settings_say_so(contexts, tmp_path, rules, expected):
    path = clip(tmp_path / "a.mp4")
    with contexts.new_files(tmp_path / "files", **rules) as context:
        reader = loaded(context, [path], frames=25)
        assert numbers_in(reader.read("image", 0) * 127.5 + 127.5) == expected
        assert samples_of(context) == {}


def test_the_part_of_a_clip_that_is_trained_is_the_settings_and_part_of_a_samples_key(contexts, tmp_path):
    path = clip(tmp_path / "a.mp4")
    keys = set()
    for window, first in {"start": 0, "centre": 5, "random": None}.items():
        with contexts.new_files(tmp_path / "files", frame_window=window) as context:
            reader = loaded(context, [path], frames=9)
            numbers = numbers_in(reader.read("image", 0) * 127.5 + 127.5)
            assert numbers == list(range(numbers[0], numbers[0] + 9))
            assert first is None or numbers[0] == first
            recipe = read_recipe(reader.pipeline.modules, len(reader.pipeline.modules), ["image"])
            keys.add(make_key(recipe.key_parts(["image"])))
    assert len(keys) == 3


def test_a_clip_that_vanishes_after_the_check_is_passed_over_and_not_in_quarantine(contexts, tmp_path):
    paths = [clip(tmp_path / "a.mp4"), clip(tmp_path / "b.mp4", frames=21)]
    with contexts.new_files(tmp_path / "files") as context:
        reader = loaded(context, paths, frames=9)
        paths[0].unlink()
        with pytest.raises(SampleError, match=r"a\.mp4"):
            reader.read("image", 0)
        assert reader.read("image", 1) is not None
        context.skip(0, SampleError("gone", path=paths[0], context={"damaged": True}))
        assert context.quarantine.entries() == []


def test_many_threads_measure_every_clip_once(contexts, good_clips, tmp_path, monkeypatch):
    measured = []
    probe = MediaReader.probe
    monkeypatch.setattr(MediaReader, "probe", lambda reader, path: measured.append(path) or probe(reader, path))
    paths = [str(truth.path) for truth in good_clips]
    with contexts.new_files(tmp_path / "files") as context:
        started(Collector([concept_of()] * len(paths), paths), settings_of(), *loading(context), threads=4)
        assert sorted(measured) == sorted(paths)
        assert samples_of(context) == {}


# The interface of the seed document


def test_load_video_safe_gives_frames_from_the_middle(context, good_clips):
    [truth] = [truth for truth in good_clips if truth.path.name == "h264_16fps.mp4"]
    for loader in (RobustVideoLoader(), RobustVideoLoader(context=context)):
        video = loader.load_video_safe(str(truth.path), 9)
        assert video.shape == (3, 9, 120, 160)
        numbers = numbers_in(video)
        assert numbers == list(range(15, 24)), "the middle of 40 frames"


def test_load_video_safe_gives_none_for_what_cannot_serve_and_records_it(context, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    assert RobustVideoLoader().load_video_safe(str(bad), 9) is None
    assert RobustVideoLoader(context=context).load_video_safe(str(bad), 9) is None
    assert "text file" in samples_of(context)[str(bad)].reason
    short = clip(tmp_path / "short.mp4", frames=5)
    assert RobustVideoLoader(context=context).load_video_safe(str(short), 9) is None


def test_validate_video_metadata_measures(good_clips, context):
    truth = good_clips[0]
    for loader in (RobustVideoLoader(), RobustVideoLoader(context=context)):
        metadata = loader.validate_video_metadata(str(truth.path))
        assert (metadata.width, metadata.height) == truth.size
        assert metadata.frame_count == truth.frame_count
        assert metadata.codec == truth.codec


def test_get_video_fallback_is_a_black_picture_of_the_clips_size(context, good_clips, tmp_path):
    loader = RobustVideoLoader(range_min=-1.0, context=context)
    picture = loader.get_video_fallback(str(good_clips[0].path))
    assert picture.shape == (3, 1, good_clips[0].size[1], good_clips[0].size[0])
    assert (picture == -1).all()
    assert loader.get_video_fallback(str(tmp_path / "missing.mp4")).shape == (3, 1, 16, 16)


def test_handle_video_error_puts_nothing_in_its_place(context):
    assert RobustVideoLoader(context=context).handle_video_error("a.mp4", ValueError("odd")) is None
    assert samples_of(context)["a.mp4"].reason == "odd"
    assert RobustVideoLoader().handle_video_error("a.mp4", ValueError("odd")) is None


def test_paths_may_be_of_any_script(context, tmp_path):
    path = clip(Path(tmp_path) / "vögel и птицы 鳥.mp4")
    assert loaded(context, [path], frames=9).read("image", 0).shape[1] == 9


def test_a_clip_that_hits_a_limit_is_tried_again_when_the_limit_is_raised(contexts, tmp_path):
    path = clip(tmp_path / "large.mp4")
    error = SampleError("file cannot be read", path=path, reason="too much memory", fix="scale it down")
    error.context.update(damaged=True, limits="10 s, 4096 MB")
    with contexts.new_files(tmp_path / "files") as context:
        context.skip(None, error)
        [entry] = context.quarantine.entries()
        assert entry.path == str(path)
    with contexts.new_files(tmp_path / "files") as context, pytest.raises(SampleError, match="in quarantine") as caught:
        context.probe(str(path))
    assert caught.value.reason == "too much memory"
    assert caught.value.fix == "scale it down; it is tried again as soon as it changes"
    with contexts.new_files(tmp_path / "files", decode_memory_mb=8192) as context:
        assert context.probe(str(path)).frame_count
