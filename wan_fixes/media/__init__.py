"""Files to frames: probing, planning, decoding, images and folders. Knows no pipeline, no host, no torch."""

from wan_fixes.media.decode import decode_frames
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan, plan_frames
from wan_fixes.media.probe import probe

__all__ = [
    "FramePlan",
    "VideoMetadata",
    "decode_frames",
    "plan_frames",
    "probe",
]
