"""Several samples of one clip: each as if it were decoded alone, and every frame decoded once for all of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import ClipTruth, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import paint_frame, read_frame_number

from wan_fixes.errors import SampleError
from wan_fixes.media import Fit, FramePlan, count_chunks, decode_clip, decode_samples, plan_frames, probe
from wan_fixes.media.limits import Deadline
from wan_fixes.media.strict import StrictDecoder

DEADLINE = 30.0


class Counter:
    """Packets that the decoder got and frames that it gave, in all passes together, and how many passes there were."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.packets = self.frames = self.passes = self.tail = 0
        start, decode = StrictDecoder.__init__, StrictDecoder.decode

        def started(decoder, *arguments, **options):
            start(decoder, *arguments, **options)
            self.passes += 1
            self.tail = decoder.tail

        def decoded(decoder, packet):
            frames = decode(decoder, packet)
            self.packets += packet is not None
            self.frames += len(frames)
            return frames

        patch.setattr(StrictDecoder, "__init__", started)
        patch.setattr(StrictDecoder, "decode", decoded)


@pytest.fixture
def counter() -> Iterator[Counter]:
    with pytest.MonkeyPatch.context() as patch:
        yield Counter(patch)


def long_clip(path: Path, frames: int = 130, **options) -> Path:
    """With a key frame every twelve frames."""
    pictures = (paint_frame(number, width=96, height=64) for number in range(frames))
    return write_clip(path, pictures, options={"g": "12", "preset": "ultrafast", "bf": "2"}, **options)


def chunks(path: Path, count: int, fit: Fit | None = None) -> list[tuple[FramePlan, Fit | None]]:
    metadata = probe(path)
    numbers = range(count_chunks(metadata, count=count, fps=None))
    return [(plan_frames(metadata, count=count, fps=None, window="chunks", chunk=number), fit) for number in numbers]


def numbers_in(pictures) -> list[int | None]:
    return [read_frame_number(picture) for picture in np.moveaxis(pictures, 0, -1)]


def alone(path: Path, plan: FramePlan, fit: Fit | None):
    try:
        return decode_clip(path, plan, fit=fit, deadline=DEADLINE)
    except SampleError as error:
        return error


def assert_same(together, one) -> None:
    if isinstance(one, SampleError):
        assert isinstance(together, SampleError) and str(together) == str(one)
    else:
        assert isinstance(together, np.ndarray) and np.array_equal(together, one)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_sample_is_what_it_is_alone(good_clips: list[ClipTruth], data: st.DataObject) -> None:
    truth = data.draw(st.sampled_from(good_clips))
    metadata = probe(truth.path)
    samples = []
    for _ in range(data.draw(st.integers(1, 4))):
        count = data.draw(st.sampled_from([1, 5, 9, 17]))
        rng = random.Random(data.draw(st.integers(0, 99)))
        plan = plan_frames(metadata, count=count, fps=data.draw(st.sampled_from([16, 24, None])), rng=rng)
        fit = data.draw(st.sampled_from([None, Fit((48, 64), (4, 8, 32, 48))]))
        samples.append((replace(plan, timestamps=None) if data.draw(st.booleans()) else plan, fit))
    together = decode_samples(truth.path, samples, deadline=DEADLINE)
    assert len(together) == len(samples)
    for result, sample in zip(together, samples, strict=True):
        assert_same(result, alone(truth.path, *sample))
        assert not isinstance(result, SampleError)
        assert sample[1] or numbers_in(result) == list(sample[0].indices)


@pytest.mark.parametrize(
    ("name", "encoder"), [("a.mp4", "libx264"), ("a.mkv", "libx265"), ("a.mp4", "mpeg4"), ("a.webm", "libvpx-vp9")]
)
def test_chunks_decode_each_frame_once(tmp_path: Path, counter: Counter, name, encoder) -> None:
    path = tmp_path / name
    pictures = (paint_frame(number, width=96, height=64) for number in range(130))
    write_clip(path, pictures, encoder=encoder, options={"g": "12"})
    samples = chunks(path, 13)
    counter.packets = counter.frames = counter.passes = 0
    together = decode_samples(path, samples, deadline=DEADLINE)
    assert [number for result in together for number in numbers_in(result)] == list(range(130))
    assert counter.passes == 1
    assert counter.frames <= 130 + counter.tail
    assert counter.packets <= 130 + counter.tail

    once = counter.frames
    for plan, fit in samples:
        decode_clip(path, plan, fit=fit, deadline=DEADLINE)
    assert counter.passes == 1 + len(samples)
    assert counter.frames - once > 130, "alone, each begins at the key frame before it"


def test_overlapping_windows_share_a_pass_and_those_far_away_are_sought(tmp_path: Path, counter: Counter) -> None:
    path = long_clip(tmp_path / "a.mp4", 250)
    metadata = probe(path)
    times, stamps = metadata.frame_times, metadata.timestamps

    def window(first: int) -> tuple[FramePlan, None]:
        frames = range(first, first + 17)
        at = tuple(frames)
        return FramePlan(tuple(times[frame] for frame in at), at, tuple(stamps[frame] for frame in at)), None

    for firsts, passes, most in [
        ([5, 10, 0], 1, 27),
        ([40, 24, 55], 1, 72 - 24),
        ([0, 33], 1, 50),
        ([34, 0], 2, 34 + 2 * 12),
        ([220, 24, 30, 230, 120], 3, 23 + 27 + 17 + 3 * 12),
    ]:
        counter.packets = counter.passes = counter.frames = 0
        together = decode_samples(path, [window(first) for first in firsts], deadline=DEADLINE)
        assert [numbers_in(result) for result in together] == [list(range(first, first + 17)) for first in firsts]
        assert counter.passes == passes, firsts
        assert counter.packets <= most + passes * (counter.tail + 3), "the frames between are not decoded"


def test_each_chunk_of_a_damaged_clip_has_its_own_verdict(tmp_path: Path) -> None:
    path = long_clip(tmp_path / "a.mp4")
    sound = path.read_bytes()
    metadata = probe(path)
    samples = [(plan_frames(metadata, count=13, fps=None, window="chunks", chunk=number), None) for number in range(10)]
    verdicts = set()
    for seed in range(30):
        rng = random.Random(seed)
        damaged = bytearray(sound)
        start = rng.randrange(len(sound) // 8, len(sound) - len(sound) // 8)  # past the header, before the index
        damaged[start : start + 40] = rng.randbytes(40)
        path.write_bytes(damaged)
        together = decode_samples(path, samples, deadline=DEADLINE)
        failed = [isinstance(result, SampleError) for result in together]
        for result, sample in zip(together, samples, strict=True):
            assert_same(result, alone(path, *sample))
        verdicts.add(sum(failed))
    assert verdicts & {1, 2}, "damage within one group of pictures costs one chunk or two"


def test_each_sample_is_written_into_the_array_that_was_asked_for(tmp_path: Path) -> None:
    path = long_clip(tmp_path / "a.mp4", 30)
    arrays: list[np.ndarray] = []

    def allocate(shape):
        arrays.append(np.zeros(shape, np.uint8))
        return arrays[-1]

    fit = Fit((32, 48), (2, 4, 24, 40))
    together = decode_samples(path, chunks(path, 9, fit), deadline=DEADLINE, allocate=allocate)
    assert [result.shape for result in together] == [(3, 9, 24, 40)] * 3
    assert len(arrays) == 3
    assert all(result is array for result, array in zip(together, arrays, strict=True))
    other = [(replace(plan, decoder="none"), None) for plan, _ in chunks(path, 9)]
    errors = decode_samples(path, other, deadline=DEADLINE, allocate=allocate)
    assert all("does not work here" in str(error) for error in errors) and len(arrays) == 3


def test_what_keeps_a_file_from_being_read_is_said_of_every_sample(tmp_path: Path) -> None:
    path = long_clip(tmp_path / "a.mp4", 30)
    samples = chunks(path, 9)
    assert decode_samples(path, [], deadline=DEADLINE) == []
    late = decode_samples(path, samples, deadline=0)
    assert [isinstance(error, SampleError) and "took longer than" in error.reason for error in late] == [True] * 3
    with pytest.raises(ValueError, match="empty"):
        decode_samples(path, [*samples, (FramePlan((), ()), None)])

    beyond = (FramePlan((99.0,), (30,)), None)
    *whole, missing = decode_samples(path, [*samples, beyond], deadline=DEADLINE)
    assert [number for result in whole for number in numbers_in(result)] == list(range(27))
    assert "it has 30 frames, and frame 30 is planned" in missing.reason

    moved = tmp_path / "b.mp4"
    shutil.move(path, moved)
    gone = decode_samples(path, samples, deadline=DEADLINE)
    assert ["does not exist" in error.reason for error in gone] == [True] * 3


def test_a_clip_that_was_replaced_by_a_shorter_one_gives_the_frames_that_are_still_there(tmp_path: Path) -> None:
    path = long_clip(tmp_path / "a.mp4", 60, rate=24)
    samples = chunks(path, 9)
    long_clip(path, 30, rate=24)
    together = decode_samples(path, samples, deadline=DEADLINE)
    for result, sample in zip(together, samples, strict=True):
        assert_same(result, alone(path, *sample))
    assert [isinstance(result, SampleError) for result in together] == [False] * 3 + [True] * 3


def test_a_part_of_the_time_ends_with_the_whole(tmp_path: Path) -> None:
    whole = Deadline(30, tmp_path)
    assert whole.within(5).remaining() <= 5 and 25 < whole.within(60).remaining() <= 30
    whole.within(60).check()
    with pytest.raises(SampleError, match="took longer than"):
        Deadline(0, tmp_path).within(60).check()
