"""Which frames a player shows and when, read from the packets without decoding them."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from wan_fixes.errors import SampleError
from wan_fixes.media.colour import Orientation
from wan_fixes.media.diagnosis import what_it_is_instead
from wan_fixes.media.extent import missing_bytes
from wan_fixes.media.limits import Deadline, check_picture_size
from wan_fixes.media.opening import (
    REENCODE,
    OpenVideo,
    clock_of,
    damaged,
    moving_streams,
    open_video,
    reading,
)
from wan_fixes.media.shape import pixel_aspect_of

#: Codecs of which every packet gives exactly one shown frame. Others (VP8 has hidden frames, Theora and WMV3 repeat
#: frames by empty packets) are counted by decoding.
# fmt: off
_ONE_FRAME_PER_PACKET: Final = frozenset((
    "h264", "hevc", "vvc", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", "h263", "flv1", "wmv1", "wmv2",
    "msmpeg4v2", "msmpeg4v3", "mjpeg", "prores", "dnxhd", "cfhd", "ffv1", "huffyuv", "ffvhuff", "utvideo",
    "magicyuv", "png", "qtrle", "rawvideo", "v210", "dvvideo", "jpeg2000",
))
# fmt: on
#: AVI knows no presentation times: for these, FFmpeg gives the packets rising times although frames change places.
_REORDERED: Final = frozenset(("h264", "hevc", "vvc"))
#: When one of so many last packets is marked as damaged, the last one ends where the file does.
_PACKETS_AT_THE_END: Final = 4


@dataclass(frozen=True)
class FrameIndex:
    """The shown frames of one clip."""

    #: Presentation times in units of `time_base`, rising. From the container, or made up when `counted`.
    timestamps: list[int]
    time_base: Fraction
    #: How long the last frame stays, in units of `time_base`; 0 when unknown.
    last_duration: int
    #: The container's times can't be trusted: frames are found by counting from the start.
    counted: bool
    first_frame: av.VideoFrame
    #: How that one, and the others with it, are turned for display.
    orientation: Orientation
    #: Packets that the container promises beyond those that it holds.
    missing_packets: int = 0


def read_index(path: str | os.PathLike[str], deadline: Deadline, max_pixels: int) -> tuple[FrameIndex, dict[str, Any]]:
    """The frames of `path`, and the facts of its header; raises SampleError."""
    with open_video(path, deadline, max_pixels, threads=False) as video, reading(path, deadline, video.decoder):
        facts = _header_facts(video.container, video.stream)
        facts["missing_bytes"] = missing_bytes(path)
        index = _index_from_packets(path, video, deadline, max_pixels, facts["missing_bytes"] > 0)
    if index is None:
        index = _index_by_decoding(path, deadline, max_pixels)
    return index, facts


def _header_facts(container: InputContainer, stream: VideoStream) -> dict[str, Any]:
    context = stream.codec_context
    return {
        "containers": container.format.name.split(","),
        "codec": context.codec.canonical_name,
        "video_streams": len(moving_streams(container)),
        "rate": stream.guessed_rate or stream.average_rate,
        "pixel_aspect": pixel_aspect_of(stream),
        "transfer": context.color_trc,
    }


def _index_from_packets(
    path: str | os.PathLike[str], video: OpenVideo, deadline: Deadline, max_pixels: int, is_cut_off: bool
) -> FrameIndex | None:
    """None when the packets don't tell which frames are shown."""
    container, stream, decoder = video
    codec = stream.codec_context.codec.canonical_name
    is_avi, is_asf = ("avi" in container.format.name, "asf" in container.format.name)
    one_to_one = codec in _ONE_FRAME_PER_PACKET and not (is_avi and codec in _REORDERED)
    first_frame: av.VideoFrame | None = None
    first_key: int | None = None
    key_seen = False
    durations: dict[int, int] = {}  # of the shown frames, by time stamp
    packets_seen = packets_hidden = 0
    last: int | None = None  # in the file's order
    marked = -_PACKETS_AT_THE_END
    for packet in container.demux(stream):
        deadline.check()
        key_seen = key_seen or packet.is_keyframe
        if key_seen and first_frame is None:
            first_frame = next(iter(video.frames_of(packet)), None)
        if not packet.size:
            continue
        packets_seen += 1
        if not key_seen or (packet.is_discard and packet.pts is not None):
            # Hidden: joined midway, or cut away by an edit list.
            first_key = packet.pts if packet.is_keyframe and first_key is None else first_key
            packets_hidden += packet.is_discard
            continue
        if packet.pts is None or packet.pts in durations:
            one_to_one = False
        else:
            durations[packet.pts] = packet.duration or 0
            first_key = packet.pts if first_key is None else first_key
            last = packet.pts
            marked = packets_seen if packet.is_corrupt else marked
        if not one_to_one and first_frame is not None:
            break
    if first_frame is None:
        raise _nothing_shown(path, stream, packets_seen, packets_hidden, max_pixels)
    # The packets of ASF are not marked.
    is_ragged = packets_seen - marked < _PACKETS_AT_THE_END or (is_cut_off and is_asf)
    if is_ragged and last is not None:
        del durations[last]
        packets_seen -= 1
    # Earlier in time than the first key frame: such frames build on others that are cut away.
    timestamps = sorted(pts for pts in durations if first_key is None or pts >= first_key)
    if not one_to_one or not timestamps:
        return None
    return FrameIndex(
        timestamps=timestamps,
        time_base=clock_of(stream),
        last_duration=durations[timestamps[-1]],
        counted=False,
        first_frame=first_frame,
        orientation=decoder.orientation_of(first_frame),
        # AVI counts the times at which no new frame appears too.
        missing_packets=max(0, stream.frames - max(packets_seen, timestamps[-1] - timestamps[0] + 1 if is_avi else 0)),
    )


def _nothing_shown(
    path: str | os.PathLike[str], stream: VideoStream, packets_seen: int, packets_hidden: int, max_pixels: int
) -> SampleError:
    """The error for a file that FFmpeg opened, and that gave not one frame."""
    instead = what_it_is_instead(path)
    if instead is not None:
        return SampleError("clip cannot be read", path=path, **instead._asdict(), module="media")
    if packets_seen and packets_seen == packets_hidden:
        return SampleError(
            "clip cannot be read",
            path=path,
            reason="its edit list hides every frame",
            fix="copy it without the list: ffmpeg -ignore_editlist 1 -i IN -c copy OUT.mp4",
            module="media",
        )
    if not packets_seen:
        return damaged(path, "not one frame is where its index says")
    # FFmpeg refuses pictures that are too large without a word, and often forgets their size.
    context = stream.codec_context
    check_picture_size(path, context.width, context.height, max_pixels)
    or_large = "" if context.width else f", or its pictures have far more than {max_pixels} pixels"
    return damaged(path, f"not one frame can be decoded{or_large}")


def _index_by_decoding(path: str | os.PathLike[str], deadline: Deadline, max_pixels: int) -> FrameIndex:
    first_frame: av.VideoFrame | None = None
    times: list[int | None] = []
    last_duration = 0
    with open_video(path, deadline, max_pixels) as video, reading(path, deadline, video.decoder):
        for frame in video.frames():
            deadline.check()
            first_frame = first_frame or frame
            times.append(frame.pts)
            last_duration = frame.duration or 0
        time_base, rate = clock_of(video.stream), video.stream.guessed_rate or video.stream.average_rate
    if first_frame is None:
        raise damaged(path, "not one frame can be decoded")
    orientation = video.decoder.orientation_of(first_frame)
    timestamps = [time for time in times if time is not None]
    if len(timestamps) == len(times) and all(a < b for a, b in itertools.pairwise(timestamps)):
        return FrameIndex(timestamps, time_base, last_duration, False, first_frame, orientation)
    if not rate:
        raise SampleError(
            "clip cannot be read",
            path=path,
            reason="it holds neither times of its frames nor a frame rate",
            fix=REENCODE,
            module="media",
        )
    return FrameIndex(list(range(len(times))), 1 / Fraction(rate), 1, True, first_frame, orientation)
