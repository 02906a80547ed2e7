"""Which frames of a clip a sample is made of: planned by time, before anything is decoded."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wan_fixes.errors import SampleError
from wan_fixes.media import VIDEO_EXTENSIONS, FramePlan, VideoMetadata, count_chunks, plan_frames
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.fan_out import fan_out
from wan_fixes.pipeline.known_samples import known_samples


class SafeVideoFrameSampler(PipelineModule, RandomAccessPipelineModule):
    """Yields a ``FramePlan`` for each video and None for anything else.

    At the start every clip is measured once (remembered by its content), so that the clips that cannot serve,
    broken or too short, are known and left out before the first is encoded.

    Parameters
    ----------
    target_frame_rate:
        Frames per second of the sample; None keeps each clip's own rate.
    supported_extensions:
        Which files are videos: those that the loader behind it takes.
    """

    # The window is drawn from the sample's content; raise this when it is drawn differently.
    CACHE_VERSION = 1

    def __init__(
        self,
        path_in_name: str,
        target_frame_count_in_name: str,
        frame_plan_out_name: str,
        target_frame_rate: float | None,
        supported_extensions: Collection[str] = VIDEO_EXTENSIONS,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__()
        self.path_in_name = path_in_name
        self.target_frame_count_in_name = target_frame_count_in_name
        self.frame_plan_out_name = frame_plan_out_name
        self.target_frame_rate = target_frame_rate
        self.supported_extensions = {extension.lower() for extension in supported_extensions}
        self.chunk_in_name: str | None = None
        self._unmeasured: dict[str, SampleError] = {}
        self.context = context
        # Here, where the key of a cached sample finds them.
        self.window = context.settings.frame_window
        self.short_clips = context.settings.short_clips

    def length(self) -> int:
        return int(self._get_previous_length(self.path_in_name))

    def get_inputs(self) -> list[str]:
        chunk = [self.chunk_in_name] if self.chunk_in_name else []
        return [self.path_in_name, self.target_frame_count_in_name, *chunk]

    def get_outputs(self) -> list[str]:
        return [self.frame_plan_out_name]

    def start(self, variation: int) -> None:
        """Measure the clips in the pipeline's threads and drop those that cannot serve.

        Not those that are cached and have not changed since.
        """
        behind = [known for known in known_samples(self.pipeline.modules) if known.depends_on(self)]
        unchanged = set.intersection(*(known.indices() for known in behind)) if behind else set()
        indices = [index for index in range(self.length()) if index not in unchanged]
        at_once = self.context.recovery.policy.max_threads
        work = fan_out(self._state.executor, lambda index: self.plan(variation, index), indices, at_once)
        for index, future in tqdm(work, total=len(indices), desc="checking clips", unit="clip"):
            try:
                future.result()
            except SampleError as error:
                self.context.skip(index, error)
        self._unmeasured.clear()

    def plan(self, variation: int, index: int) -> FramePlan | None:
        """The frames of one sample; None when it is no video. Raises ``SampleError``."""
        path = self._get_previous_item(variation, self.path_in_name, index)
        if not self._is_video(path):
            return None
        if path in self._unmeasured:  # which can take long
            raise self._unmeasured[path]
        count = int(self._get_previous_item(variation, self.target_frame_count_in_name, index))
        chunk = int(self._get_previous_item(variation, self.chunk_in_name, index)) if self.chunk_in_name else 0
        plan = plan_window(self.context, path, variation, count, self.target_frame_rate, chunk)
        if self.chunk_in_name:
            self.context.check_quarantine(path, window_name(plan))
        return plan

    def chunks_in(self, variation: int, path: str) -> int:
        """How many samples a file gives that is cut into chunks; 1 when it is no video. Raises ``SampleError``."""
        if not self._is_video(path):
            return 1
        count = int(self._get_previous_item(variation, self.target_frame_count_in_name, 0))
        try:
            metadata = _measured(self.context, path)
        except SampleError as error:
            self._unmeasured[path] = error
            raise
        return count_chunks(metadata, count=count, fps=self.target_frame_rate)

    def _is_video(self, path: str) -> bool:
        return Path(path).suffix.lower() in self.supported_extensions

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {self.frame_plan_out_name: self.plan(variation, index)}


def window_name(plan: FramePlan) -> str:
    """What one of a clip's windows is called in quarantine."""
    return f"frames {min(plan.indices)} to {max(plan.indices)}"


def plan_window(
    context: PipelineContext, path: str, variation: int, count: int, fps: float | None, chunk: int = 0
) -> FramePlan:
    """The window of `count` frames at `fps` that the settings ask for; a random one is fixed by content and variation.

    Raises ``SampleError``.
    """
    metadata = _measured(context, path)
    try:
        return plan_frames(
            metadata,
            count=count,
            fps=fps,
            rng=context.rng(variation, path, "window"),
            window=context.settings.frame_window,
            short_clips=context.settings.short_clips,
            chunk=chunk,
        )
    except SampleError as error:
        error.path = error.path or path
        raise


def _measured(context: PipelineContext, path: str) -> VideoMetadata:
    try:
        return context.probe(path)
    except SampleError as error:
        if error.module != "quarantine":
            error.context.setdefault("damaged", True)
        raise
