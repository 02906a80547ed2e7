"""Decoding exactly the planned frames of a clip, of several samples in one pass, and refusing what FFmpeg conceals."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Final

import av

from wan_fixes.errors import SampleError
from wan_fixes.media.collector import Allocate, Collector, Fit, OutOfOrderError, Pixels, new_array
from wan_fixes.media.limits import DEADLINE_SECONDS, MAX_PIXELS, Deadline
from wan_fixes.media.opening import FOREIGN_ERRORS, OpenVideo, clock_of, damaged, open_video, reading
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.probe import probe

#: Seconds before the first planned frame to which is sought. A seek that lands behind its target (MPEG-PS and TS do
#: that, and open groups of pictures have the same effect) is repeated from farther back, at last from the start.
_SEEK_MARGINS: Final = (0.0, 3.0, 15.0, None)
#: FFmpeg's names of the containers that hold no times: the packets are numbered as they come, and after a seek as the
#: index says. A damaged one says another frame, so nothing is sought; reading past packets costs next to nothing.
_NUMBERED: Final = frozenset(("avi",))


def decode_samples(
    path: str | os.PathLike[str],
    samples: Sequence[tuple[FramePlan, Fit | None]],
    *,
    deadline: float = DEADLINE_SECONDS,
    max_pixels: int = MAX_PIXELS,
    allocate: Allocate = new_array,
) -> list[Pixels | SampleError]:
    """Of each sample of a clip what `decode_clip` would return or raise, in as few passes over the clip as it takes.

    Windows that overlap, or follow one another within less than a window, share a pass: each frame is decoded once for
    all of them. Those farther away are sought. `deadline` is in seconds for each sample, in one sum for all.
    `allocate(shape)` gives the uint8 array that a sample's frames are written into; nothing else grows with their
    number. A sample that fails doesn't spoil the others: what had not come whole when a pass broke off is decoded by
    itself.
    """
    if not all(plan.indices for plan, _ in samples):
        raise ValueError("a plan is empty")
    if not samples:
        return []
    clock = Deadline(deadline * len(samples), path)
    wanted = [Collector(path, plan, fit, max_pixels, allocate) for plan, fit in samples]
    try:
        _find_timestamps(path, wanted, clock, max_pixels)
        for group in _passes([sample for sample in wanted if sample.failure is None]):
            _decode_group(path, group, deadline, clock, max_pixels)
    except SampleError as error:
        for sample in wanted:
            if not sample.is_done:
                sample.failure = sample.failure or error
    return [sample.result() for sample in wanted]


def _find_timestamps(
    path: str | os.PathLike[str], wanted: Sequence[Collector], clock: Deadline, max_pixels: int
) -> None:
    unknown = [sample for sample in wanted if sample.keys is None]
    if not unknown:
        return
    known = probe(path, max_pixels=max_pixels, deadline=clock.remaining()).timestamps
    for sample in unknown:
        last = max(sample.plan.indices)
        if known and last >= len(known):
            sample.failure = damaged(path, f"it has {len(known)} frames, and frame {last} is planned")
        else:
            sample.keys = tuple(known[index] for index in sample.plan.indices) if known else ()


def _passes(wanted: Sequence[Collector]) -> Iterator[list[Collector]]:
    """The samples in the order of the clip, those together that share a pass. Counting always begins at the start."""
    group: list[Collector] = []
    end = 0
    for sample in sorted(wanted, key=lambda sample: (bool(sample.keys), sample.first, sample.last)):
        is_far = sample.first - end >= sample.last + 1 - sample.first
        if group and (bool(sample.keys) != bool(group[0].keys) or (sample.keys and is_far)):
            yield group
            group = []
        end = max(end, sample.last + 1) if group else sample.last + 1
        group.append(sample)
    if group:
        yield group


def _decode_group(
    path: str | os.PathLike[str], group: list[Collector], deadline: float, clock: Deadline, max_pixels: int
) -> None:
    """Decode in one pass, and by themselves the samples that did not come whole: each is to have its own verdict.

    Raises SampleError when the time for all is over.
    """
    try:
        _decode_pass(path, group, clock, max_pixels)
    except SampleError as error:
        for sample in group:
            sample.is_done = sample.is_done or sample.is_settled()
        if len(group) == 1:
            group[0].failure = error
    if len(group) == 1:
        group[0].is_done = True
        return
    for sample in group:
        if sample.is_done:
            continue
        clock.check()
        try:
            _decode_pass(path, [sample], clock.within(deadline), max_pixels)
        except SampleError as error:
            sample.failure = error
        sample.is_done = True


def _decode_pass(path: str | os.PathLike[str], group: list[Collector], clock: Deadline, max_pixels: int) -> None:
    """Collect from one key frame on, from ever farther back until every sample is complete. Raises SampleError."""
    if not group[0].keys:
        _decode_by_counting(path, group, clock, max_pixels)
        return
    left = group
    for margin in _SEEK_MARGINS:
        from_start = margin is None or min(sample.first for sample in left) == 0
        with open_video(path, clock, max_pixels) as video, reading(path, clock, video.decoder):
            unit = clock_of(video.stream)
            for sample in left:
                sample.begin(video, unit)
            packets = video.container.demux(video.stream)
            if margin is not None and not from_start:
                target = min(sample.first_key for sample in left) - int(margin / unit)
                if video.container.format.name in _NUMBERED:
                    packets = _from_key_frame(packets, target, clock)
                else:
                    with contextlib.suppress(*FOREIGN_ERRORS):  # without an index: then from the start, where it stands
                        video.container.seek(target, stream=video.stream)
            try:
                for frame in _decode_span(video, packets, left, clock):
                    for sample in left:
                        sample.take(frame, frame.pts)
            except OutOfOrderError as error:
                if from_start:
                    raise damaged(path, "its frames come in another order than their times") from error
                for sample in left:
                    sample.is_done = sample.is_settled()
                left = [sample for sample in left if not sample.is_done]
                continue
        for sample in left:
            sample.is_done = sample.complete()
        left = [sample for sample in left if not sample.is_done]
        if not left or from_start:
            break


def _from_key_frame(packets: Iterator[av.Packet], target: int, clock: Deadline) -> Iterator[av.Packet]:
    """The packets from the last key frame at or before the time stamp `target` on."""
    held: list[av.Packet] = []
    for packet in packets:
        clock.check()
        is_behind = packet.pts is None or packet.pts > target
        if packet.is_keyframe and not is_behind:
            held.clear()
        held.append(packet)
        if is_behind:
            break
    yield from held
    yield from packets


def _decode_span(
    video: OpenVideo, packets: Iterator[av.Packet], wanted: Sequence[Collector], clock: Deadline
) -> Iterator[av.VideoFrame]:
    """Frames from a key frame at or before the first wanted one; nothing when the seek landed behind it.

    The wanted frames don't depend on packets after the last wanted one, in the file's order, so the damage of those
    doesn't matter; no more are fed than the decoder needs to tell the damage of the wanted ones.
    """
    waiting = list(wanted)
    first_wanted = min(sample.first_key for sample in wanted)
    due: set[int | None] = set()  # fed and not yet out: what the wanted frames may depend on
    last: av.Packet | None = None
    for packet in packets:
        clock.check()
        # Where recordings were joined, bytes are missed too that never were.
        if last is not None and _is_marked(video, last) and packet.size and not packet.is_keyframe:
            raise ValueError("a part of it is missing in the file")
        if last is None:
            if not packet.is_keyframe:
                continue
            if packet.pts is None or packet.pts > first_wanted:
                return
        if packet.size == 0:
            break
        last = packet
        due.add(packet.pts)
        waiting = [sample for sample in waiting if sample.was_fed(packet.pts)]
        for frame in video.decoder.decode(packet):
            due.discard(frame.pts)
            yield frame
        if not waiting and not _is_marked(video, packet):
            break
    if last is None:
        return
    for frame in _decode_tail(video, last):
        if frame.pts in due:
            due.discard(frame.pts)
            yield frame


def _is_marked(video: OpenVideo, packet: av.Packet) -> bool:
    """Whether the demuxer misses a part of `packet`.

    A transport stream numbers its parts. What others mark, where a file ends early, may be another packet than the one
    that isn't whole.
    """
    return packet.is_corrupt and video.container.format.name == "mpegts"


def _decode_tail(video: OpenVideo, last: av.Packet) -> Iterator[av.VideoFrame]:
    """What the decoder still holds back. It is fed `last` again, of which nothing comes out that is due, for as long as
    it needs to be sure of the damage in what came before."""
    for _ in range(video.decoder.tail):
        with contextlib.suppress(*FOREIGN_ERRORS):
            yield from video.decoder.decode(last)
    yield from video.decoder.decode(None)


def _decode_by_counting(
    path: str | os.PathLike[str], group: Sequence[Collector], clock: Deadline, max_pixels: int
) -> None:
    last = max(sample.last for sample in group)
    with open_video(path, clock, max_pixels) as video, reading(path, clock, video.decoder):
        for sample in group:
            sample.begin(video, None)
        for number, frame in enumerate(video.frames()):
            clock.check()
            for sample in group:
                sample.take(frame, number)
            if number == last:
                break
    for sample in group:
        sample.is_done = sample.complete()
