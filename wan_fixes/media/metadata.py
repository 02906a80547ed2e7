"""What is known of a clip once it has been probed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoMetadata:
    """Size, rate and the time of every frame that a player shows.

    Hidden frames (cut away by an edit list, or before the first key frame) don't count.
    """

    #: Square pixels as displayed, rotation applied.
    width: int
    height: int
    #: Frames per second; the mean for a clip of variable rate.
    fps: float
    #: Seconds from the first frame's appearance to the last one's end.
    duration: float
    frame_count: int
    #: The container, in FFmpeg's name.
    format: str
    #: The codec, in FFmpeg's name.
    codec: str
    is_corrupted: bool
    error_details: str | None
    #: When each shown frame appears, in seconds, in order; the first at 0.
    frame_times: tuple[float, ...] = ()
    #: Seconds that the last frame stays.
    last_frame_duration: float = 0.0
    is_variable_rate: bool = False
    #: Degrees clockwise that the stored picture is turned by for display: 0, 90, 180 or 270.
    rotation: int = 0
    #: FFmpeg's name, such as "yuv420p".
    pixel_format: str = ""
    #: Of one channel.
    bit_depth: int = 8
    #: By which the colours are read: "bt709", "bt601", "bt2020", "rgb" …
    colour_matrix: str = ""
    #: "limited" (16 to 235 of 8 bits) or "full".
    colour_range: str = ""
    #: Whether the file doesn't say its matrix, and the one that players assume is taken.
    colour_assumed: bool = False
    #: When the first shown frame appears on the container's clock, in seconds.
    start_seconds: float = 0.0
    #: Streams of moving pictures in the file, of which one is used.
    video_streams: int = 1
    #: Things worth knowing that don't keep the clip from being used.
    warnings: tuple[str, ...] = ()
    #: The file that this is about, for messages.
    path: str = ""
    #: The container's own time stamp of every shown frame, which decoding finds them by. Empty when the file lacks
    #: trustworthy ones: its frames are counted from the start instead.
    timestamps: tuple[int, ...] = ()
    #: Which decoder of the chain measured the clip, and decodes it: "pyav", "torchcodec" or "decord".
    decoder: str = "pyav"
