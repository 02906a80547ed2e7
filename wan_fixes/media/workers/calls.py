"""What a worker process may be asked for, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from wan_fixes.media.decoders import decode_samples, decord, probe
from wan_fixes.media.images import load_image
from wan_fixes.media.poster import poster
from wan_fixes.media.verdict import inspect_image, inspect_video

#: Each takes a path and named arguments. Arrays and bytes that it returns travel through the shared buffer: those of
#: `decode_samples` are made in it, where `allocate` can tell how many bytes they are.
CALLS: Final[dict[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (probe, decode_samples, load_image, inspect_video, inspect_image, poster)
} | {"decord_measure": decord.measure, "decord_deliver": decord.deliver}
