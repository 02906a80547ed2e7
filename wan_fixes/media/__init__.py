"""Files to frames: probing, planning, decoding, images and folders. Knows no pipeline, no host, no torch."""

from wan_fixes.media.collector import Fit
from wan_fixes.media.decoders import decode_clip, decode_frames, decode_samples, is_decoder_available, probe
from wan_fixes.media.folders import (
    IMAGE_EXTENSIONS,
    MASK_POSTFIXES,
    VIDEO_EXTENSIONS,
    FileState,
    ScanResult,
    is_image,
    is_sample,
    is_video,
    scan_folder,
)
from wan_fixes.media.images import load_image
from wan_fixes.media.limits import DEADLINE_SECONDS, MAX_PIXELS
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan, count_chunks, plan_frames
from wan_fixes.media.poster import poster
from wan_fixes.media.reader import MEMORY_MB, MediaReader
from wan_fixes.media.verdict import Verdict, inspect_image, inspect_video

__all__ = [
    "DEADLINE_SECONDS",
    "IMAGE_EXTENSIONS",
    "MASK_POSTFIXES",
    "MAX_PIXELS",
    "MEMORY_MB",
    "VIDEO_EXTENSIONS",
    "FileState",
    "Fit",
    "FramePlan",
    "MediaReader",
    "ScanResult",
    "Verdict",
    "VideoMetadata",
    "count_chunks",
    "decode_clip",
    "decode_frames",
    "decode_samples",
    "inspect_image",
    "inspect_video",
    "is_decoder_available",
    "is_image",
    "is_sample",
    "is_video",
    "load_image",
    "plan_frames",
    "poster",
    "probe",
    "scan_folder",
]
