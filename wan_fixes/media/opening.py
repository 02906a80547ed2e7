"""Opening a file as a video: regular files of known containers only, with a time-out, and with words for failures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Final, NamedTuple

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from wan_fixes.errors import SampleError
from wan_fixes.media.diagnosis import check_regular_file, why_not_a_video
from wan_fixes.media.limits import Deadline, check_memory, check_picture_size
from wan_fixes.media.strict import StrictDecoder

#: FFmpeg's names of the containers that we open. Playlists and scripts (concat, hls, dash, image2 …) are formats to
#: FFmpeg too, and open whatever files they name, whatever they are called themselves.
CONTAINERS: Final = "mov,matroska,avi,flv,asf,mpegts,mpeg,mpegvideo,m4v,ogg,mxf,nut,ivf"
_CONTAINER_OPTIONS: Final = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
REENCODE: Final = "re-encode with: ffmpeg -i IN -c:v libx264 -crf 16 OUT.mp4, or remove it"

#: Opening decodes a frame where the header says too little, so the limit of pixels should hold there already. Before
#: 17.1, PyAV writes past its memory when it passes options on and streams appear later (MPEG, FLV): there, FFmpeg's own
#: limit (about 268 million pixels) must do.
_OPENING_TAKES_OPTIONS: Final = tuple(int(part) for part in av.__version__.split(".")[:2]) >= (17, 1)

#: What PyAV raises about a file's content. FFmpeg's errors are FFmpegError; the others come from turning foreign
#: numbers and strings into Python's, and (IndexError) from streams that appear while a file is read.
FOREIGN_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError, ArithmeticError, IndexError, MemoryError)

_UNREADABLE: Final = "clip cannot be read"


class OpenVideo(NamedTuple):
    """A file that is open, its video stream, and what decodes that."""

    container: InputContainer
    stream: VideoStream
    decoder: StrictDecoder

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame that the decoder gives, from where the container stands."""
        for packet in self.container.demux(self.stream):
            yield from self.decoder.decode(packet)

    def frames_of(self, packet: av.Packet) -> list[av.VideoFrame]:
        """The frames that `packet` completes; none also when it is damaged, since a later one may show something."""
        try:
            return self.decoder.decode(packet)
        except FOREIGN_ERRORS:
            return []


@contextmanager
def open_video(
    path: str | os.PathLike[str], deadline: Deadline, max_pixels: int, *, threads: bool = True
) -> Iterator[OpenVideo]:
    """Open `path` and choose its video stream; closes the container afterwards.

    `threads` decode frames at the same time. Raises SampleError when the file is no regular file, holds no video, has
    pictures beyond `max_pixels`, or when opening takes longer than `deadline`. The caller reads within `reading`.
    """
    check_regular_file(path, _UNREADABLE)
    try:
        container = av.open(
            # An explicit protocol: a name such as "http:x.mp4" or "concat:a|b" stays the name of a file.
            "file:" + os.path.abspath(path),  # noqa: PTH100
            container_options=_CONTAINER_OPTIONS,
            options=_decoder_limit(max_pixels) if _OPENING_TAKES_OPTIONS else None,
            metadata_errors="replace",
            timeout=(deadline.remaining(), deadline.remaining()),
        )
    except FOREIGN_ERRORS as error:
        deadline.check()
        check_memory(path, error)
        diagnosis = why_not_a_video(path, error)
        raise SampleError(_UNREADABLE, path=path, **diagnosis._asdict(), module="media") from error
    with container:
        stream = _choose_stream(path, container)
        context = stream.codec_context
        check_picture_size(path, context.width, context.height, max_pixels)
        # The limit again, for sizes that only the bit stream tells.
        yield OpenVideo(container, stream, StrictDecoder(stream, _decoder_limit(max_pixels), threads=threads))


@contextmanager
def reading(path: str | os.PathLike[str], deadline: Deadline, decoder: StrictDecoder) -> Iterator[None]:
    """Turn FFmpeg's errors within into SampleError: "damaged", with the place that `decoder` has come to."""
    try:
        yield
    except FOREIGN_ERRORS as error:
        deadline.check()
        check_memory(path, error)
        raise damaged(path, f"{getattr(error, 'strerror', None) or error}{decoder.place_of_error()}") from error


def damaged(path: str | os.PathLike[str], detail: str) -> SampleError:
    """The error for a clip whose picture data is damaged; `detail` says where or how."""
    return SampleError(
        _UNREADABLE, path=path, reason=f"its picture data is damaged: {detail}", fix=REENCODE, module="media"
    )


def _decoder_limit(max_pixels: int) -> dict[str, str]:
    """FFmpeg counts the pixels with padding, and only guards memory; pictures are measured again once decoded."""
    return {"max_pixels": str(2 * max_pixels + (1 << 16))}


def clock_of(stream: VideoStream) -> Fraction:
    """The length of one unit of the stream's time stamps, in seconds."""
    if not stream.time_base:
        raise ValueError("the stream has no time base")
    return stream.time_base


def moving_streams(container: InputContainer) -> list[VideoStream]:
    """The streams of moving pictures: cover art is a video stream too."""
    return [stream for stream in container.streams.video if not _is_cover(stream)]


def _choose_stream(path: str | os.PathLike[str], container: InputContainer) -> VideoStream:
    """The stream of moving pictures that players show, when there are several."""
    moving = moving_streams(container)
    best: Any = container.streams.best("video") if len(moving) > 1 else None
    for stream in sorted(moving, key=lambda stream: best is None or stream.index != best.index):
        if stream.codec_context is not None:
            return stream
    context: dict[str, Any] = {}
    if moving:
        reason = "its video is in a format that this FFmpeg cannot decode"
        # Another decoder may; and once one is installed that does, the file is as good as any.
        context = {"unsupported": True, "damaged": False}
    elif container.streams.audio:
        cover = " and a cover picture" if container.streams.video else ""
        reason = f"holds audio only{cover}"
    else:
        reason = "holds no video stream"
    raise SampleError(_UNREADABLE, path=path, reason=reason, fix=REENCODE, module="media", context=context)


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)
