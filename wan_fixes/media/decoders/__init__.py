"""The decoders, one behind another: PyAV serves, and another where PyAV cannot read a file at all."""

from wan_fixes.media.decoders.chain import (
    CHAIN,
    decode_clip,
    decode_frames,
    decode_samples,
    is_decoder_available,
    probe,
)

__all__ = ["CHAIN", "decode_clip", "decode_frames", "decode_samples", "is_decoder_available", "probe"]
