"""A definition of stock MGDS modules, as OneTrainer's text-to-image mixin builds it for a video model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mgds.OutputPipelineModule import OutputPipelineModule
from mgds.pipelineModules.AspectBatchSorting import AspectBatchSorting
from mgds.pipelineModules.AspectBucketing import AspectBucketing
from mgds.pipelineModules.CalcAspect import CalcAspect
from mgds.pipelineModules.CollectPaths import CollectPaths
from mgds.pipelineModules.DiskCache import DiskCache
from mgds.pipelineModules.DownloadHuggingfaceDatasets import DownloadHuggingfaceDatasets
from mgds.pipelineModules.EncodeT5Text import EncodeT5Text
from mgds.pipelineModules.EncodeVAE import EncodeVAE
from mgds.pipelineModules.GenerateImageLike import GenerateImageLike
from mgds.pipelineModules.GetFilename import GetFilename
from mgds.pipelineModules.ImageToVideo import ImageToVideo
from mgds.pipelineModules.InlineAspectBatchSorting import InlineAspectBatchSorting
from mgds.pipelineModules.LoadImage import LoadImage
from mgds.pipelineModules.LoadMultipleTexts import LoadMultipleTexts
from mgds.pipelineModules.LoadVideo import LoadVideo
from mgds.pipelineModules.MapData import MapData
from mgds.pipelineModules.ModifyPath import ModifyPath
from mgds.pipelineModules.RandomFlip import RandomFlip
from mgds.pipelineModules.RescaleImageChannels import RescaleImageChannels
from mgds.pipelineModules.SampleVAEDistribution import SampleVAEDistribution
from mgds.pipelineModules.ScaleCropImage import ScaleCropImage
from mgds.pipelineModules.SelectInput import SelectInput
from mgds.pipelineModules.SelectRandomText import SelectRandomText
from mgds.pipelineModules.ShuffleTags import ShuffleTags
from mgds.pipelineModules.Tokenize import Tokenize
from mgds.pipelineModules.VariationSorting import VariationSorting

from wan_fixes.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS

GROUPS = ["concept.path", "concept.seed", "concept.include_subdirectories"]
BALANCING = {
    "balancing_in_name": "concept.balancing",
    "balancing_strategy_in_name": "concept.balancing_strategy",
    "group_enabled_in_name": "concept.enabled",
}
IMAGES = ["latent_image", "original_resolution", "crop_offset"]
AGGREGATES = ["crop_resolution", "image_path"]
TEXTS = ["tokens", "tokens_mask", "hidden_state"]
SORTED = [*AGGREGATES, *IMAGES, *TEXTS, "prompt", "concept"]

SETTINGS = {"target_resolution": "64", "target_frames": "9"}


def concept_over(folder: Path, **changes: Any) -> dict[str, Any]:
    """A concept with the fields of OneTrainer's that these modules read."""
    return {
        "name": folder.name,
        "path": str(folder),
        "seed": 1,
        "enabled": True,
        "type": "STANDARD",
        "include_subdirectories": True,
        "image_variations": 1,
        "text_variations": 1,
        "balancing": 1.0,
        "balancing_strategy": "REPEATS",
        "loss_weight": 1.0,
        "image": {
            "enable_crop_jitter": False,
            "enable_random_flip": False,
            "enable_fixed_flip": False,
            "enable_resolution_override": False,
            "resolution_override": "512",
        },
        "text": {
            "prompt_source": "sample",
            "prompt_path": "",
            "enable_tag_shuffling": False,
            "tag_delimiter": ",",
            "keep_tags_count": 1,
        },
        **changes,
    }


def stock_definition(
    networks: SimpleNamespace, cache_dir: Path, *, caching: bool = True, batch_size: int = 1, masks: bool = False
) -> list[Any]:
    """Nested as the mixin nests it, with None for what is switched off."""
    return [
        _paths(masks),
        _loading(masks),
        None,
        _frames(masks),
        _encoding(networks, masks),
        _sorting(cache_dir, caching, batch_size, masks),
        None,
    ]


def _paths(masks: bool) -> list[Any]:
    return [
        DownloadHuggingfaceDatasets("concept", "path", "enabled", "concept"),
        CollectPaths(
            concept_in_name="concept",
            path_in_name="path",
            include_subdirectories_in_name="concept.include_subdirectories",
            enabled_in_name="enabled",
            path_out_name="image_path",
            concept_out_name="concept",
            extensions=IMAGE_EXTENSIONS | VIDEO_EXTENSIONS,
            include_postfix=None,
            exclude_postfix=["-masklabel", "-condlabel"],
        ),
        ModifyPath(in_name="image_path", out_name="sample_prompt_path", postfix="", extension=".txt"),
        ModifyPath(in_name="image_path", out_name="mask_path", postfix="-masklabel", extension=".png")
        if masks
        else None,
    ]


def _loading(masks: bool) -> list[Any]:
    sources = {"sample": "sample_prompts", "concept": "concept_prompts", "filename": "filename_prompt"}
    return [
        LoadImage("image_path", "image", 0, 1, supported_extensions=IMAGE_EXTENSIONS, dtype=torch.float32),
        LoadVideo(
            path_in_name="image_path",
            target_frame_count_in_name="settings.target_frames",
            video_out_name="image",
            range_min=0,
            range_max=1,
            target_frame_rate=24,
            supported_extensions=VIDEO_EXTENSIONS,
            dtype=torch.float32,
        ),
        ImageToVideo(in_name="image", out_name="image"),
        LoadMultipleTexts(path_in_name="sample_prompt_path", texts_out_name="sample_prompts"),
        LoadMultipleTexts(path_in_name="concept.text.prompt_path", texts_out_name="concept_prompts"),
        GetFilename(path_in_name="image_path", filename_out_name="filename_prompt", include_extension=False),
        SelectInput("concept.text.prompt_source", "prompts", sources, default_in_name="sample_prompts"),
        SelectRandomText(texts_in_name="prompts", text_out_name="prompt"),
        [
            GenerateImageLike("image", "mask", color=255, range_min=0, range_max=1),
            LoadImage("mask_path", "mask", 0, 1, channels=1, supported_extensions={".png"}, dtype=torch.float32),
            ImageToVideo(in_name="mask", out_name="mask"),
        ]
        if masks
        else None,
    ]


def _frames(masks: bool) -> list[Any]:
    names = ["image", "mask"] if masks else ["image"]
    return [
        CalcAspect(image_in_name="image", resolution_out_name="original_resolution"),
        AspectBucketing(
            quantization=16,
            resolution_in_name="original_resolution",
            target_resolution_in_name="settings.target_resolution",
            enable_target_resolutions_override_in_name="concept.image.enable_resolution_override",
            target_resolutions_override_in_name="concept.image.resolution_override",
            target_frames_in_name="settings.target_frames",
            frame_dim_enabled=True,
            scale_resolution_out_name="scale_resolution",
            crop_resolution_out_name="crop_resolution",
            possible_resolutions_out_name="possible_resolutions",
        ),
        ScaleCropImage(names, "scale_resolution", "crop_resolution", "concept.image.enable_crop_jitter", "crop_offset"),
        RandomFlip(names, "concept.image.enable_random_flip", "concept.image.enable_fixed_flip"),
        ShuffleTags(
            text_in_name="prompt",
            enabled_in_name="concept.text.enable_tag_shuffling",
            delimiter_in_name="concept.text.tag_delimiter",
            keep_tags_count_in_name="concept.text.keep_tags_count",
            text_out_name="prompt",
        ),
    ]


def _encoding(networks: SimpleNamespace, masks: bool) -> list[Any]:
    common = {"autocast_contexts": [torch.autocast("cpu", enabled=False)], "dtype": torch.float32}
    return [
        RescaleImageChannels("image", "image", 0, 1, -1, 1),
        EncodeVAE(in_name="image", out_name="distribution", vae=networks.vae, **common),
        SampleVAEDistribution(in_name="distribution", out_name="latent_image", mode="mean"),
        MapData(in_name="mask", out_name="latent_mask", map_fn=lambda mask: mask[:, ::4, ::8, ::8]) if masks else None,
        MapData(in_name="prompt", out_name="prompt_with_embeddings", map_fn=lambda prompt: prompt),
        Tokenize("prompt_with_embeddings", "tokens", "tokens_mask", tokenizer=networks.tokenizer, max_token_length=24),
        EncodeT5Text(
            tokens_in_name="tokens",
            tokens_attention_mask_in_name="tokens_mask",
            hidden_state_out_name="hidden_state",
            pooled_out_name=None,
            text_encoder=networks.text_encoder,
            add_layer_norm=False,
            hidden_state_output_index=-1,
            **common,
        ),
    ]


def _sorting(cache_dir: Path, caching: bool, batch_size: int, masks: bool) -> list[Any]:
    extra = ["latent_mask"] if masks else []
    caches = [
        DiskCache(
            cache_dir=str(cache_dir / "image"),
            split_names=[*IMAGES, *extra],
            aggregate_names=AGGREGATES,
            variations_in_name="concept.image_variations",
            variations_group_in_name=[*GROUPS, "concept.image"],
            **BALANCING,
        ),
        DiskCache(
            cache_dir=str(cache_dir / "text"),
            split_names=TEXTS,
            aggregate_names=[],
            variations_in_name="concept.text_variations",
            variations_group_in_name=[*GROUPS, "concept.text"],
            **BALANCING,
        ),
    ]
    left = ["prompt", "concept"] if caching else [*SORTED, *extra]
    sorting = AspectBatchSorting if caching else InlineAspectBatchSorting
    return [
        caches if caching else None,
        VariationSorting(names=left, variations_group_in_name=[*GROUPS, "concept.text"], **BALANCING),
        sorting(resolution_in_name="crop_resolution", names=[*SORTED, *extra], batch_size=batch_size),
        OutputPipelineModule(
            [*[name for name in SORTED if name != "concept"], *extra, ("concept.loss_weight", "loss_weight")]
        ),
    ]
