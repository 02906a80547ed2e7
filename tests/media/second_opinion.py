"""What can be known of damage: FFmpeg at its strictest, one packet after the other on one thread, from the start."""

from __future__ import annotations

from pathlib import Path

import av

from wan_fixes.media import FramePlan

_REFERENCE_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_STRICTEST = {"err_detect": "crccheck+bitstream+buffer+careful+compliant+aggressive+explode"}


def finds_damage(path: Path, plan: FramePlan) -> bool:
    """Whether the packets from the key frame before the planned frames to the last of them show any sign of damage.

    A plan without time stamps counts the frames that come.
    """
    begin, end, shown = 0, None, 0
    suspects: set[int] = set()
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        if context.name in _REFERENCE_DECODERS:
            reference = av.CodecContext.create(_REFERENCE_DECODERS[context.name], "r")
            reference.extradata = context.extradata
            context = reference
        context.thread_count = 1
        context.options = _STRICTEST
        number_of: dict[int | None, int] = {}
        was_marked = False
        for number, packet in enumerate(container.demux(stream)):
            number_of[packet.pts] = number
            if was_marked and packet.size and not packet.is_keyframe:
                suspects.add(number - 1)
            was_marked = packet.is_corrupt
            try:
                frames = context.decode(packet if packet.size else None)
            except (av.error.FFmpegError, ValueError):
                suspects.add(number)
                frames = []
            suspects.update(number_of.get(frame.pts, number) for frame in frames if frame.is_corrupt)
            shown += len(frames)
            if plan.timestamps:
                if packet.is_keyframe and packet.pts is not None and packet.pts <= min(plan.timestamps):
                    begin = number
                if packet.pts == max(plan.timestamps):
                    end = number
            elif shown > max(plan.indices) and end is None:
                end = number
    return any(begin <= suspect and (end is None or suspect <= end) for suspect in suspects)
