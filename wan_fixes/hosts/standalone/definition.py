"""The pipeline definition: from concepts to batches of latents and text embeddings.

Loading, encoding, caching and sorting are the validated modules; the plain ones between them are guarded when the
definition goes through the hook ``onetrainer_rewrite_pipeline``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wan_fixes.hosts.standalone.modules import (
    AspectBucketing,
    EncodePrompt,
    GetFilename,
    ImageToVideo,
    ModifyPath,
    RandomFlip,
    SampleVAEDistribution,
    SelectInput,
    SelectRandomText,
    ShuffleTags,
)
from wan_fixes.hosts.standalone.preset import Preset
from wan_fixes.media import IMAGE_EXTENSIONS, MASK_POSTFIXES, VIDEO_EXTENSIONS
from wan_fixes.pipeline import (
    PipelineContext,
    RobustTemporalVAE,
    RobustVideoLoader,
    SafeAspectBatchSorting,
    SafeInlineAspectBatchSorting,
    SafeVariationSorting,
    SafeVideoFrameSampler,
    ValidatedCaptionLoader,
    ValidatedCollectPaths,
    ValidatedDiskCache,
    ValidatedImageLoader,
)
from wan_fixes.pipeline.base import OutputPipelineModule
from wan_fixes.pipeline.scale_crop import MeasuredAspect, SafeScaleCrop

if TYPE_CHECKING:
    from wan_fixes.hosts.standalone.model import WanModel

DARKEST, BRIGHTEST = -1.0, 1.0
"""What the VAE takes black and white for."""

_LATENTS = ["latent_image", "crop_resolution", "image_path"]
_TEXTS = ["text_encoder_hidden_state", "cleaned_prompt"]
_MADE = [*_LATENTS, *_TEXTS, "concept"]

_GROUP = {
    "balancing_in_name": "concept.balancing",
    "balancing_strategy_in_name": "concept.balancing_strategy",
    "group_enabled_in_name": "concept.enabled",
}


def pipeline_settings(preset: Preset) -> dict[str, str]:
    """The ``settings`` that the modules read."""
    return {"target_resolution": preset.resolution, "target_frames": str(preset.frames)}


def build_definition(
    preset: Preset,
    model: WanModel,
    context: PipelineContext,
    *,
    use_part: Callable[[str], None] = lambda _: None,
) -> list[Any]:
    """The definition, nested as MGDS takes it.

    Items of a sample: ``latent_image`` ``[C, F, H, W]`` (the VAE's own scale), ``text_encoder_hidden_state``
    ``[512, D]``, ``image_path``, ``prompt`` (as the tokenizer got it), ``crop_resolution`` ``(F, H, W)`` in pixels,
    ``loss_weight``.

    Parameters
    ----------
    use_part:
        Called with ``vae`` or ``text_encoder`` before a cache needs that part on the training device.
    """
    return [
        *sample_definition(preset, context),
        encoding_definition(model, context),
        _cache(preset, context, use_part) if preset.latent_caching else _sort(_MADE, context),
        _output(preset, context),
    ]


def sample_definition(preset: Preset, context: PipelineContext, *, only: str | None = None) -> list[Any]:
    """The part of the definition that takes no model: from concepts to ``image`` ``[3, F, H, W]`` and ``prompt``.

    Parameters
    ----------
    only:
        Take this file of the concepts' folders, as they are listed, and none of another name.
    """
    loader = RobustVideoLoader(
        path_in_name="image_path",
        target_frame_count_in_name="settings.target_frames",
        video_out_name="image",
        range_min=DARKEST,
        range_max=BRIGHTEST,
        target_frame_rate=preset.variant.fps,
        supported_extensions=VIDEO_EXTENSIONS,
        context=context,
        frame_plan_in_name="frame_plan",
    )
    return [
        _collect(context, only),
        _load(preset, loader, context),
        _frames(preset, loader, context),
        _prompts(context),
    ]


def _collect(context: PipelineContext, only: str | None) -> list[Any]:
    return [
        ValidatedCollectPaths(
            concept_in_name="concept",
            path_in_name="path",
            include_subdirectories_in_name="concept.include_subdirectories",
            enabled_in_name="enabled",
            path_out_name="image_path",
            concept_out_name="concept",
            extensions={*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS},
            include_postfix=None if only is None else [only.rpartition(".")[0]],
            exclude_postfix=list(MASK_POSTFIXES),
            context=context,
        ),
    ]


def _load(preset: Preset, loader: RobustVideoLoader, context: PipelineContext) -> list[Any]:
    return [
        ValidatedImageLoader(
            path_in_name="image_path",
            image_out_name="image",
            range_min=DARKEST,
            range_max=BRIGHTEST,
            supported_extensions=IMAGE_EXTENSIONS,
            context=context,
        ),
        SafeVideoFrameSampler(
            path_in_name="image_path",
            target_frame_count_in_name="settings.target_frames",
            frame_plan_out_name="frame_plan",
            target_frame_rate=preset.variant.fps,
            context=context,
        ),
        loader,
        ImageToVideo(in_name="image", out_name="image"),
    ]


def _frames(preset: Preset, loader: RobustVideoLoader, context: PipelineContext) -> list[Any]:
    return [
        MeasuredAspect("image", "original_resolution", loader=loader),
        AspectBucketing(
            quantization=preset.variant.spatial_multiple,
            resolution_in_name="original_resolution",
            target_resolution_in_name="settings.target_resolution",
            enable_target_resolutions_override_in_name="concept.image.enable_resolution_override",
            target_resolutions_override_in_name="concept.image.resolution_override",
            scale_resolution_out_name="scale_resolution",
            crop_resolution_out_name="crop_resolution",
            squares_only=not preset.aspect_ratio_bucketing,
            context=context,
        ),
        SafeScaleCrop(
            names=["image"],
            scale_resolution_in_name="scale_resolution",
            crop_resolution_in_name="crop_resolution",
            enable_crop_jitter_in_name="concept.image.enable_crop_jitter",
            crop_offset_out_name=None,
            loader=loader,
            context=context,
        ),
        RandomFlip(
            image_in_name="image",
            image_out_name="image",
            enabled_in_name="concept.image.enable_random_flip",
            fixed_enabled_in_name="concept.image.enable_fixed_flip",
            context=context,
        ),
    ]


def _prompts(context: PipelineContext) -> list[Any]:
    return [
        ModifyPath(in_name="image_path", out_name="sample_prompt_path", postfix="", extension=".txt"),
        ValidatedCaptionLoader("sample_prompt_path", "sample_prompts", context=context),
        ValidatedCaptionLoader("concept.text.prompt_path", "concept_prompts", context=context),
        GetFilename(path_in_name="image_path", filename_out_name="filename_prompt"),
        SelectInput(
            setting_name="concept.text.prompt_source",
            out_name="prompts",
            setting_to_in_name_map={
                "sample": "sample_prompts",
                "concept": "concept_prompts",
                "filename": "filename_prompt",
            },
        ),
        SelectRandomText(texts_in_name="prompts", text_out_name="prompt", context=context),
        ShuffleTags(
            text_in_name="prompt",
            enabled_in_name="concept.text.enable_tag_shuffling",
            delimiter_in_name="concept.text.tag_delimiter",
            keep_tags_count_in_name="concept.text.keep_tags_count",
            text_out_name="prompt",
            context=context,
        ),
    ]


def encoding_definition(model: WanModel, context: PipelineContext) -> list[Any]:
    """The part that comes after `sample_definition`: to ``latent_image`` and ``text_encoder_hidden_state``."""
    vae_dtype = next(model.vae.parameters()).dtype
    return [
        RobustTemporalVAE(
            in_name="image", out_name="latent_distribution", vae=model.vae, dtype=vae_dtype, context=context
        ),
        SampleVAEDistribution(in_name="latent_distribution", out_name="latent_image"),
        EncodePrompt(
            in_name="prompt",
            text_out_name="cleaned_prompt",
            hidden_state_out_name="text_encoder_hidden_state",
            tokenizer=model.tokenizer,
            text_encoder=model.text_encoder,
        ),
    ]


def _group_names(kind: str) -> list[str]:
    return ["concept.path", "concept.seed", "concept.include_subdirectories", f"concept.{kind}"]


def _cache(preset: Preset, context: PipelineContext, use_part: Callable[[str], None]) -> list[Any]:
    return [
        ValidatedDiskCache(
            cache_dir=str(preset.cache_dir / "image"),
            split_names=["latent_image"],
            aggregate_names=["crop_resolution", "image_path"],
            variations_in_name="concept.image_variations",
            variations_group_in_name=_group_names("image"),
            before_cache_fun=lambda: use_part("vae"),
            context=context,
            **_GROUP,
        ),
        ValidatedDiskCache(
            cache_dir=str(preset.cache_dir / "text"),
            split_names=["text_encoder_hidden_state"],
            aggregate_names=["cleaned_prompt"],
            variations_in_name="concept.text_variations",
            variations_group_in_name=_group_names("text"),
            before_cache_fun=lambda: use_part("text_encoder"),
            context=context,
            **_GROUP,
        ),
        _sort(["concept"], context),
    ]


def _sort(names: list[str], context: PipelineContext) -> Any:
    return SafeVariationSorting(names=names, variations_group_in_name=_group_names("text"), context=context, **_GROUP)


def _output(preset: Preset, context: PipelineContext) -> list[Any]:
    sorting = SafeAspectBatchSorting if preset.latent_caching else SafeInlineAspectBatchSorting
    return [
        sorting(resolution_in_name="crop_resolution", names=_MADE, batch_size=preset.batch_size, context=context),
        OutputPipelineModule(
            [
                *_LATENTS,
                "text_encoder_hidden_state",
                ("cleaned_prompt", "prompt"),
                ("concept.loss_weight", "loss_weight"),
            ]
        ),
    ]
