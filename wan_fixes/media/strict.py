"""Decoding by the decoder and the settings that find most damage: FFmpeg's own choice conceals it for some codecs."""

from __future__ import annotations

import os
from typing import Final

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from wan_fixes.media.colour import Orientation, orientation_of

#: FFmpeg's decoder of these neither reports nor marks damaged slices otherwise.
_EXPLODE: Final = frozenset(("hevc", "mjpeg"))
#: With frame threads, FFmpeg may give out a frame of these before the thread that decodes it has found its errors: it
#: is not marked then. MPEG-4 is decoded fast enough without. H.264 is not, and without them more of its errors are
#: concealed unmarked; its frames are held back until their threads must be done (see also `tail`).
_WITHOUT_FRAME_THREADS: Final = frozenset(("mpeg4",))
_HELD_BACK: Final = frozenset(("h264",))
_THREADS: Final = min(6, (os.cpu_count() or 1) + 1)
#: Threads may be this many frames ahead of the shown one beyond their number: frames change places.
_REORDERED: Final = 4
#: FFmpeg's own decoders of these take damaged data for picture data. The reference decoder tells them apart, and is
#: as fast.
_REFERENCE_DECODERS: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
#: So many zeros in a row mean a hole in the file: sectors that were never written or could not be read. In H.264 and
#: HEVC three are forbidden within a unit (ITU-T H.264, 7.4.1); the coders of VP8 and VP9 write some for still pictures.
_HOLES: Final = {"h264": bytes(32), "hevc": bytes(32), "vp8": bytes(128), "vp9": bytes(128)}


class StrictDecoder:
    """Decodes the packets of `stream`; raises FFmpeg's errors for damage that it finds."""

    def __init__(self, stream: VideoStream, options: dict[str, str], *, threads: bool) -> None:
        native = stream.codec_context
        self._hole = _HOLES.get(native.name)
        #: Only FFmpeg's own choice is told what the container says of the picture's orientation.
        self._told: VideoCodecContext | None = None
        self._orientation: Orientation | None = None
        #: By the rotation that PyAV tells of a frame.
        self._orientations: dict[int, Orientation] = {}
        self._context: VideoCodecContext = native
        count = _THREADS if threads else 1  # for one frame, starting them would take longer than decoding it
        strict = {"err_detect": "explode"} if native.name in _EXPLODE else {}
        #: So many packets after the last wanted one must be fed, else the errors of the last frames stay unknown.
        self.tail = 0
        if native.name in _HELD_BACK and threads:
            strict["has_b_frames"] = str(_THREADS + _REORDERED)
            self.tail = _THREADS
        reference = _REFERENCE_DECODERS.get(native.name)
        if reference in av.codecs_available:
            native.thread_count = 1
            self._told = native
            context = VideoCodecContext.create(reference, "r")
            assert isinstance(context, VideoCodecContext), f"{reference} decodes no video"
            context.extradata = native.extradata
            self._context = context
        self._context.options = options | strict
        self._context.thread_type = "SLICE" if native.name in _WITHOUT_FRAME_THREADS else "AUTO"
        self._context.thread_count = count
        self._positions: dict[int | None, int] = {}
        self._latest_position: int | None = None

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that `packet` completes; those that are left when it is None, or empty as the last one is.

        Raises ValueError where a part of it is missing, and FFmpeg's errors.
        """
        if packet is not None and not packet.size:
            packet = None
        if packet is not None and packet.pos is not None and packet.pos >= 0:
            self._positions[packet.pts] = self._latest_position = packet.pos
        if self._hole is not None and packet is not None:
            # Between the units of H.264 and HEVC, and so at the end of a packet, zeros are allowed.
            data = bytes(packet) if self._told is not None else bytes(packet).rstrip(b"\0")
            if self._hole in data:
                raise ValueError("a part of it is zeros only, a hole in the file")
        if self._told is not None and self._orientation is None and packet is not None:
            self._orientation = next(map(orientation_of, self._told.decode(packet)), None)
        return self._context.decode(packet)

    def place_of(self, pts: int | None) -> str:
        """Where in the file the packet with this time stamp begins, for a message: empty when it isn't known."""
        position = self._positions.get(pts)
        return "" if position is None else f", byte {position}"

    def place_of_error(self) -> str:
        """About where in the file the error is that `decode` raised: its threads may be a few packets behind."""
        return "" if self._latest_position is None else f", near byte {self._latest_position}"

    def orientation_of(self, frame: av.VideoFrame) -> Orientation:
        """How `frame`, which this decoder made, is turned for display."""
        if self._told is not None:
            return self._orientation or Orientation()
        # Not asked of each: a frame whose side data was looked at refers to itself, and lives on with its memory until
        # the garbage collector comes by.
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = orientation_of(frame)
        return self._orientations[frame.rotation]
