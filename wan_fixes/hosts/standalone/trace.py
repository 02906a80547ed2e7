"""One sample through the modules again, with what each of them read and gave. The user's cache is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from wan_fixes.errors import UserError, WanFixesError
from wan_fixes.hosts.standalone.concepts import Concept
from wan_fixes.hosts.standalone.definition import encoding_definition, pipeline_settings, sample_definition
from wan_fixes.hosts.standalone.devices import pick_device, weight_dtypes
from wan_fixes.hosts.standalone.model import WanModel, load_model
from wan_fixes.hosts.standalone.preset import Preset
from wan_fixes.media import FramePlan, VideoMetadata, is_sample, is_video, scan_folder
from wan_fixes.pipeline import PipelineContext
from wan_fixes.pipeline.base import (
    ConceptPipelineModule,
    LoadingPipeline,
    PipelineModule,
    PipelineState,
    RandomAccessPipelineModule,
    SettingsPipelineModule,
)
from wan_fixes.pipeline.tracing import TraceRecord, trace_modules
from wan_fixes.plugins import call_hooks, get_plugin_manager
from wan_fixes.settings import Settings

_PICTURE_AND_PROMPT: Final = ("image", "prompt")
_ENCODED: Final = ("latent_image", "text_encoder_hidden_state")
_MOST_NAMED: Final = 10  # samples that a message lists


@dataclass(frozen=True, slots=True)
class Sample:
    """A file of a preset's concepts."""

    concept: Concept
    path: str

    @property
    def name(self) -> str:
        """The path within the concept's folder."""
        path = Path(self.path)
        return str(path.relative_to(self.concept.path)) if path.is_relative_to(self.concept.path) else self.path


@dataclass(frozen=True, slots=True)
class SampleTrace:
    """What became of one sample.

    Attributes
    ----------
    records:
        The calls of the modules, in the order in which they ended.
    metadata, plan:
        Of a clip: what was measured of it, and which frames it takes; None as far as it did not come.
    with_model:
        Whether it went through the model's encoders.
    error:
        Why it cannot be used; None where it can.
    """

    path: str
    variation: int
    records: tuple[TraceRecord, ...]
    metadata: VideoMetadata | None
    plan: FramePlan | None
    with_model: bool
    error: WanFixesError | None

    @property
    def failing_module(self) -> str:
        """The module in which it fails, "" where it does not: those that wait for it fail later, by the same error."""
        return next((record.module for record in self.records if record.error), "")


def find_sample(preset: Preset, text: str) -> Sample:
    """The file of the preset's concepts that `text` is the path of, or a part of the name of.

    Raises
    ------
    UserError
        If there is none, or several, which it names.
    """
    samples = list(_samples(preset))
    exact = [sample for sample in samples if text in (sample.path, sample.name) or _is_same_file(sample.path, text)]
    found = exact or [sample for sample in samples if text.casefold() in sample.name.casefold()]
    if len({sample.path for sample in found}) == 1:
        return found[0]
    if found:
        names = ", ".join(sample.name for sample in found[:_MOST_NAMED])
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise UserError(
            "several samples are called that",
            reason=f"{text!r} is in the names of {names}{more}",
            fix="name one of them in full",
        )
    raise UserError(
        "there is no such sample",
        path=text,
        reason=f"none of the {len(samples)} clips and pictures of the preset's concepts is called that",
        fix="name a file of a concept's folder, or a part of its name; `wan check` lists them",
    )


def trace_sample(
    preset: Preset, sample: Sample, *, variation: int = 0, with_model: bool = True, settings: Settings | None = None
) -> SampleTrace:
    """Run one sample through the modules that make what is cached of it.

    Parameters
    ----------
    variation:
        Which of its variations: another window, crop, flip and prompt.
    with_model:
        Through the VAE and the text encoder too; without, only as far as the picture and the prompt.

    Raises
    ------
    UserError
        If the model or a setting cannot be used. What is wrong with the sample itself is in the trace.
    """
    settings = settings or Settings.load()
    model = _load_encoders(preset) if with_model else None
    context = PipelineContext.create(settings=settings)  # with a memory of files of its own, which goes with it
    state = PipelineState(1)
    try:
        return _trace(preset, sample, variation, model, context, state)
    finally:
        state.executor.shutdown(wait=True, cancel_futures=True)
        context.close()


def _trace(
    preset: Preset,
    sample: Sample,
    variation: int,
    model: WanModel | None,
    context: PipelineContext,
    state: PipelineState,
) -> SampleTrace:
    definition = sample_definition(preset, context, only=sample.path)
    if model is not None:
        definition.append(encoding_definition(model, context))
    call_hooks(
        get_plugin_manager(context.settings), "onetrainer_rewrite_pipeline", definition=definition, context=context
    )
    end = _End()
    head = [ConceptPipelineModule([sample.concept.to_dict()]), SettingsPipelineModule(pipeline_settings(preset))]
    pipeline = LoadingPipeline(
        torch.device("cpu"), [*head, definition, end], 1, preset.seed, state, initial_epoch=variation
    )
    pipeline.start_next_epoch()
    context.quarantine.forget(sample.path)  # else the start's finding would be repeated, and not what is found now
    index = end.index_of(variation, sample.path)
    records: list[TraceRecord] = []
    modules = pipeline.modules[:-1]
    for module in modules:
        module.clear_item_cache()
    trace_modules(modules, records.append)
    plan, error = None, None
    with torch.no_grad():
        try:
            plan = end.read(variation, "frame_plan", index)
            for name in (*_PICTURE_AND_PROMPT, *(_ENCODED if model is not None else ())):
                end.read(variation, name, index)
        except WanFixesError as failure:
            error = failure
    return SampleTrace(
        path=sample.path,
        variation=variation,
        records=tuple(records),
        metadata=_metadata(context, sample.path),
        plan=plan if isinstance(plan, FramePlan) else None,
        with_model=model is not None,
        error=error,
    )


class _End(PipelineModule, RandomAccessPipelineModule):
    """Asks for items as a cache would, from the end of the pipeline."""

    def length(self) -> int:
        return 0

    def get_inputs(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {name: self.read(variation, name, index) for name in [requested_name] if name}

    def read(self, variation: int, name: str, index: int) -> Any:
        return self._get_previous_item(variation, name, index)

    def index_of(self, variation: int, path: str) -> int:
        """The place of a file in the list; raises ``UserError`` where it is not in it."""
        for index in range(self._get_previous_length("image_path")):
            if self.read(variation, "image_path", index) == path:
                return index
        raise UserError(
            "the sample is not in the pipeline",
            path=path,
            reason="it is gone since its folder was listed, or a plugin takes it out",
            fix="look whether the file is there; plugin_folders in the settings says which plugins there are",
        )


def _samples(preset: Preset) -> Iterator[Sample]:
    for concept in preset.concepts:
        for path in scan_folder(concept.path, recursive=concept.include_subdirectories).paths:
            if is_sample(path):
                yield Sample(concept, path)


def _is_same_file(path: str, text: str) -> bool:
    try:
        return Path(text).exists() and Path(text).samefile(path)
    except (OSError, ValueError):
        return False


def _metadata(context: PipelineContext, path: str) -> VideoMetadata | None:
    """What is known of a clip; None of a picture, and of what cannot be measured."""
    try:
        return context.probe(path) if is_video(path) else None
    except WanFixesError:
        return None


def _load_encoders(preset: Preset) -> WanModel:
    return load_model(
        preset.base_model_name,
        preset.variant,
        dtypes=weight_dtypes(preset),
        device=pick_device(preset),
        encoders_only=True,
    )
