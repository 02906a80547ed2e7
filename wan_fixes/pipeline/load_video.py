"""Clips to tensors: exactly the planned frames, or an error that says why not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy
import torch

from wan_fixes.errors import SampleError
from wan_fixes.media import VIDEO_EXTENSIONS, Fit, FramePlan, VideoMetadata, plan_frames
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.media_reader import reader_for
from wan_fixes.pipeline.one_pass import OnePass, Pair
from wan_fixes.pipeline.pixels import memory_for, to_range
from wan_fixes.pipeline.sample_frames import plan_window, window_name
from wan_fixes.settings import Settings


class RobustVideoLoader(PipelineModule, RandomAccessPipelineModule):
    """In place of MGDS's LoadVideo, with its arguments; made without any it serves by itself (``load_video_safe``).

    Yields a tensor ``[C, F, H, W]`` RGB in `range_min` to `range_max` for a video, None for any other file.

    Parameters
    ----------
    frame_plan_in_name:
        The plan of a ``SafeVideoFrameSampler`` before it. Without one the loader plans for itself.
    """

    def __init__(
        self,
        path_in_name: str = "path",
        target_frame_count_in_name: str = "settings.target_frames",
        video_out_name: str = "video",
        range_min: float = 0.0,
        range_max: float = 1.0,
        target_frame_rate: float | None = None,
        supported_extensions: Collection[str] = VIDEO_EXTENSIONS,
        dtype: torch.dtype | None = None,
        *,
        context: PipelineContext | None = None,
        frame_plan_in_name: str | None = None,
    ) -> None:
        super().__init__()
        self.path_in_name = path_in_name
        self.target_frame_count_in_name = target_frame_count_in_name
        self.video_out_name = video_out_name
        self.range_min = range_min
        self.range_max = range_max
        self.target_frame_rate = target_frame_rate
        self.supported_extensions = {extension.lower() for extension in supported_extensions}
        self.dtype = dtype
        self.context = context
        self.frame_plan_in_name = frame_plan_in_name
        self._one_pass: OnePass | None = None
        self._reader = context.reader if context is not None else reader_for(Settings())

    def length(self) -> int:
        return int(self._get_previous_length(self.path_in_name))

    def get_inputs(self) -> list[str]:
        return [self.path_in_name, self.frame_plan_in_name or self.target_frame_count_in_name]

    def get_outputs(self) -> list[str]:
        return [self.video_out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {self.video_out_name: self.load_fitted(variation, index, None)}

    def load_fitted(self, variation: int, index: int, fit: Fit | None) -> torch.Tensor | None:
        """A clip scaled and cropped while it is decoded, ``[C, F, H, W]``; None when the sample is no video."""
        path = self.path_of(variation, index)
        if not self._is_video(path):
            return None
        plan = self._plan(variation, index)
        with memory_for(path):
            frames = self._with_others(path, variation, index, plan, fit)
            clip = self._decode(path, plan, fit) if frames is None else self._to_tensor(frames)
            return clip.to(self.pipeline.device)

    def decode_together(self, fit_of: Callable[[int, int], Fit]) -> None:
        """Decode samples of a clip that are announced together in one pass, as `fit_of(variation, index)` says."""

        def request(pair: Pair) -> tuple[FramePlan, Fit]:
            index, variation = pair
            return self._plan(variation, index), fit_of(variation, index)

        if self.context is not None:
            self._one_pass = OnePass(self._reader, self.context.upcoming, request)

    def _with_others(
        self, path: str, variation: int, index: int, plan: FramePlan, fit: Fit | None
    ) -> numpy.ndarray[Any, Any] | None:
        if self._one_pass is None or fit is None:
            return None
        try:
            return self._one_pass.frames(path, (index, variation), plan, fit)
        except SampleError as error:
            self._blame(error, plan)
            raise

    def resolution(self, variation: int, index: int) -> tuple[int, int, int] | None:
        """Frames, height and width of a clip, from what is known without decoding; None when it is no video."""
        path = self.path_of(variation, index)
        if not self._is_video(path):
            return None
        metadata = self.validate_video_metadata(path)
        return len(self._plan(variation, index).indices), metadata.height, metadata.width

    def path_of(self, variation: int, index: int) -> str:
        """The sample's file."""
        return str(self._get_previous_item(variation, self.path_in_name, index))

    def _is_video(self, path: str) -> bool:
        return Path(path).suffix.lower() in self.supported_extensions

    def _plan(self, variation: int, index: int) -> FramePlan:
        if self.frame_plan_in_name is not None:
            plan = self._get_previous_item(variation, self.frame_plan_in_name, index)
            assert isinstance(plan, FramePlan), f"{self.frame_plan_in_name} is not a plan: {plan!r}"
            return plan
        assert self.context is not None, "a loader in a pipeline needs the pipeline's context"
        path = self.path_of(variation, index)
        count = int(self._get_previous_item(variation, self.target_frame_count_in_name, index))
        return plan_window(self.context, path, variation, count, self.target_frame_rate)

    def _decode(self, path: str, plan: FramePlan, fit: Fit | None = None) -> torch.Tensor:
        try:
            return self._reader.decode(path, plan, self._to_tensor, fit=fit)
        except SampleError as error:
            self._blame(error, plan)
            raise

    def _blame(self, error: SampleError, plan: FramePlan) -> None:
        """Say that the clip is damaged; where each of its windows is a sample, only this one."""
        if "damaged" in error.context:
            return
        error.context["damaged"] = True
        if self.context is not None and self.context.settings.frame_window == "chunks":
            error.context["window"] = window_name(plan)

    def _to_tensor(self, frames: numpy.ndarray[Any, Any]) -> torch.Tensor:
        return to_range(torch.from_numpy(frames), self.range_min, self.range_max, self.dtype)

    # The interface of the seed document: one clip, without a pipeline

    def load_video_safe(self, video_path: str, target_frames: int) -> torch.Tensor | None:
        """Frames from the middle of a clip as ``[C, F, H, W]``, or None when it cannot serve (which is recorded)."""
        try:
            metadata = self.validate_video_metadata(video_path)
            plan = plan_frames(metadata, count=target_frames, fps=self.target_frame_rate, rng=None)
            return self._decode(video_path, plan)
        except SampleError as error:
            return self.handle_video_error(video_path, error)

    def validate_video_metadata(self, video_path: str) -> VideoMetadata:
        """What is measured about a clip. Raises ``SampleError``."""
        if self.context is not None:
            return self.context.probe(video_path)
        return self._reader.probe(video_path)

    def handle_video_error(self, video_path: str, error: Exception) -> torch.Tensor | None:
        """Record why a clip is left out. Returns None: nothing is put in its place."""
        if self.context is not None:
            ours = error if isinstance(error, SampleError) else SampleError(str(error))
            ours.path = ours.path or video_path
            self.context.skip(None, ours)
        return None

    def get_video_fallback(self, video_path: str) -> torch.Tensor:
        """A black picture ``[C, 1, H, W]`` of the clip's size (16×16 when unknown), for showing, never for training."""
        try:
            metadata = self.validate_video_metadata(video_path)
            height, width = metadata.height, metadata.width
        except SampleError:
            height = width = 16
        return torch.full((3, 1, height, width), self.range_min, dtype=self.dtype or torch.float32)
