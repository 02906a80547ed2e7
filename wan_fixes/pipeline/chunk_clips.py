"""Lists a clip once for each of the windows that follow one another in it, where the settings ask for all of them."""

from __future__ import annotations

from typing import Any, Final

from wan_fixes.pipeline.collect_paths import ValidatedCollectPaths
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.fit_to_bucket import places_in
from wan_fixes.pipeline.sample_frames import SafeVideoFrameSampler

CHUNK: Final = "clip_chunk"
"""The item that says which window of its clip a sample is."""


def chunk_clips(definition: list[Any], context: PipelineContext) -> None:
    """Have the collector of a (nested) definition ask the sampler behind it how many samples a clip gives."""
    if context.settings.frame_window != "chunks":
        return
    collectors: list[ValidatedCollectPaths] = []
    for place in places_in(definition):
        module = place.module
        if isinstance(module, ValidatedCollectPaths):
            collectors.append(module)
        elif isinstance(module, SafeVideoFrameSampler):
            # Clips are counted while they are listed, so the number of frames must be the same for all.
            is_common = module.target_frame_count_in_name.startswith("settings.")
            for collector in reversed(collectors):
                if is_common and collector.path_out_name == module.path_in_name:
                    collector.list_chunks(CHUNK, module.chunks_in)
                    module.chunk_in_name = CHUNK
                    break
            else:
                context.warn(
                    module.path_in_name,
                    "clips are not listed by the validated module, or not all are to give as many frames: each gives "
                    "its first window only",
                    "choose another frame_window",
                )
