"""The corpus: what is good is used to the frame, what is not is named, and nothing takes longer than its deadline."""

from __future__ import annotations

import bisect
import functools
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from media.corpus import CASES, Begins, Case, Either, Picture, Rejected, Serves, make
from painted import read_frame_number

from wan_fixes.errors import SampleError
from wan_fixes.media import (
    VideoMetadata,
    decode_frames,
    inspect_image,
    inspect_video,
    is_image,
    load_image,
    plan_frames,
    probe,
)

_DEADLINE = 5.0
#: Frames of a window.
_COUNT = 9
#: Matroska and FLV round times to 1 ms.
_ROUNDING = 0.0011


def _cases(*truths: type) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.truth, truths)], ids=str)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path | None]:
    folder = tmp_path_factory.mktemp("corpus")
    return functools.cache(lambda case: make(case, folder))


@pytest.fixture
def path(case: Case, made_once: Callable[[Case], Path | None]) -> Path:
    made = made_once(case)
    if made is None:
        pytest.skip(case.impossible or f"this FFmpeg has no encoder {case.encoder}")
    return made


@pytest.fixture(autouse=True)
def within_the_deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reading a file has its deadline, and so has all reading of one together."""
    if "path" in request.fixturenames:
        request.getfixturevalue("path")  # making it doesn't count
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < _DEADLINE


def _numbers(path: Path, plan, read=read_frame_number) -> list[int | None]:
    pictures = decode_frames(path, plan, deadline=_DEADLINE)
    assert pictures.dtype == np.uint8 and pictures.ndim == 4 and pictures.shape[-1] == 3
    return [read(picture) for picture in pictures]


def _windows(metadata: VideoMetadata):
    """The whole clip, its ends alone, and windows within, at its own rate and at those of WAN."""
    count = min(_COUNT, metadata.frame_count)
    yield plan_frames(metadata, count=metadata.frame_count, fps=None)
    for seed in range(2):
        yield plan_frames(metadata, count=count, fps=None, rng=random.Random(seed))
    # The last frame before a key frame, behind which a seek may land; and the very last.
    for place in (min(11, metadata.frame_count - 1), metadata.frame_count - 1):
        yield plan_frames(metadata, count=1, fps=None, rng=_Choice(place))
    yield plan_frames(metadata, count=count, fps=None, window="spread")
    for seed, fps in enumerate((16, 24)):
        if metadata.frame_count > 1:
            yield plan_frames(metadata, count=count, fps=fps, rng=random.Random(seed), short_clips="pad")


class _Choice(random.Random):
    """Draws what it is told."""

    def __init__(self, chosen: int) -> None:
        super().__init__(chosen)
        self.chosen = chosen

    def randrange(self, *arguments: int) -> int:
        assert self.chosen in range(*arguments)
        return self.chosen


def test_the_corpus_is_large_and_its_names_are_unique():
    assert len(CASES) >= 300
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    kinds = Counter(type(case.truth) for case in CASES)
    assert min(kinds[truth] for truth in (Serves, Rejected, Picture, Begins, Either)) >= 20


@_cases(Serves)
def test_a_good_clip_is_used_to_the_frame(case: Case, path: Path):
    truth = case.truth
    metadata = probe(path, deadline=_DEADLINE)
    assert metadata.frame_count == len(truth.numbers)
    assert (metadata.width, metadata.height) == truth.size
    if truth.warning:
        assert len(metadata.warnings) == 1 and truth.warning in metadata.warnings[0]
    else:
        assert metadata.warnings == ()
    assert {name: getattr(metadata, name) for name in truth.facts} == truth.facts
    times = truth.frame_times()
    if times is not None:
        assert metadata.fps == pytest.approx(truth.rate, rel=1e-3)
        assert metadata.frame_times == pytest.approx(times, abs=_ROUNDING)
    for plan in _windows(metadata):
        assert _numbers(path, plan, truth.read) == [truth.numbers[index] for index in plan.indices]
        assert plan.times == tuple(metadata.frame_times[index] for index in plan.indices)


@_cases(Serves)
def test_a_good_clip_gives_the_frames_on_screen_at_the_asked_rate(case: Case, path: Path):
    """By the times that are known of it, and not by those that were measured."""
    truth, times = case.truth, case.truth.frame_times()
    if times is None or len(times) < 2 or round(truth.rate * 1001 / 1000, 3) in (24, 30):
        pytest.skip("its rate is unknown or NTSC's, or it has one frame only")
    slack = min(0.005, min(b - a for a, b in itertools.pairwise(times)) / 2)
    for fps in (16, 24):
        plan = plan_frames(probe(path, deadline=_DEADLINE), count=5, fps=fps, window="start", short_clips="pad")
        for step, number in enumerate(_numbers(path, plan, truth.read)):
            # A frame that appears within the slack may be taken as being there already.
            possible = (bisect.bisect_right(times, step / fps + late) - 1 for late in (0, slack))
            assert number in {truth.numbers[index] for index in possible}


@_cases(Serves)
def test_a_good_clip_is_called_good(case: Case, path: Path):
    truth = case.truth
    count = min(_COUNT, len(truth.numbers))
    verdict = inspect_video(path, count=count, fps=None, deadline=_DEADLINE)
    assert (verdict.status, truth.warning in verdict.reason) == ("warning" if truth.warning else "good", True)
    assert (verdict.width, verdict.height) == truth.size
    if len(truth.numbers) == 1:
        verdict = inspect_video(path, count=_COUNT, fps=None, deadline=_DEADLINE)
        assert verdict.status == "rejected" and "one frame" in verdict.reason and verdict.fix


@_cases(Begins)
def test_of_a_clip_that_is_cut_off_what_is_there_is_used(case: Case, path: Path):
    truth = case.truth
    try:
        metadata = probe(path, deadline=_DEADLINE)
    except SampleError as error:
        assert truth.at_least == 0 and error.reason and error.fix and error.path == str(path)
        return
    assert truth.at_least <= metadata.frame_count <= len(truth.of)
    if truth.warning:
        assert any("the file is cut off" in warning for warning in metadata.warnings)
    try:
        for plan in _windows(metadata):
            assert _numbers(path, plan) == [truth.of[index] for index in plan.indices]
    except SampleError as error:
        assert truth.at_least == 0 and "damaged" in error.reason


@_cases(Rejected)
def test_a_bad_clip_or_image_is_refused_with_its_reason_and_a_fix(case: Case, path: Path):
    truth = case.truth
    with pytest.raises(SampleError) as caught:
        if is_image(path):
            load_image(path)
        else:
            metadata = probe(path, deadline=_DEADLINE)
            for plan in _windows(metadata):
                decode_frames(path, plan, deadline=_DEADLINE)
    assert truth.reason in caught.value.reason and truth.fix in caught.value.fix
    assert caught.value.reason and caught.value.fix and caught.value.path == str(path)
    inspect = inspect_image(path) if is_image(path) else inspect_video(path, count=1, fps=None, deadline=_DEADLINE)
    assert inspect.status == "rejected" or truth.reason == "damaged"  # one frame of it may be whole
    assert inspect.status != "rejected" or (inspect.reason and inspect.fix)


@_cases(Either)
def test_of_a_damaged_clip_only_frames_that_are_right_are_given(case: Case, path: Path):
    """Each at its time: the painted number follows from it and from the first frame's."""
    try:
        metadata = probe(path, deadline=_DEADLINE)
    except SampleError as error:
        assert error.reason and error.fix and error.path == str(path)
        return
    first: int | None = None
    for plan in reversed(list(_windows(metadata))):
        try:
            seen = _numbers(path, plan)
        except SampleError as error:
            assert error.reason and error.fix and error.path == str(path)
            continue
        starts = {
            number - round(at * case.truth.rate)
            for number, at in zip(seen, plan.times, strict=True)
            if number is not None
        }
        first = first if first is not None else min(starts, default=None)
        assert starts <= {first}
        assert None not in seen or case.truth.may_be_spoilt


@_cases(Picture)
def test_a_good_image_is_shown_as_it_is_meant(case: Case, path: Path):
    picture = load_image(path)
    assert picture.dtype == np.uint8 and picture.shape == (case.truth.size[1], case.truth.size[0], 3)
    assert read_frame_number(picture) == case.truth.number
    verdict = inspect_image(path)
    assert (verdict.status, verdict.width, verdict.height) == ("good", *case.truth.size)
