"""The reader of media files that the user's settings ask for."""

from __future__ import annotations

from wan_fixes.media import MediaReader
from wan_fixes.settings import Settings


def reader_for(settings: Settings) -> MediaReader:
    """Reads with the limits of `settings`."""
    return MediaReader(
        deadline=settings.decode_deadline_seconds,
        max_pixels=settings.max_pixels_per_frame,
        memory_mb=settings.decode_memory_mb,
        isolated=settings.isolate_decoding,
    )
