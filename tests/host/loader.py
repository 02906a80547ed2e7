"""A WAN data loader made of OneTrainer's own mixins: every module of its definition is stock, built by stock code."""

from __future__ import annotations

from typing import Any

import torch
from mgds.pipelineModules.EncodeT5Text import EncodeT5Text
from mgds.pipelineModules.EncodeVAE import EncodeVAE
from mgds.pipelineModules.RescaleImageChannels import RescaleImageChannels
from mgds.pipelineModules.SampleVAEDistribution import SampleVAEDistribution
from mgds.pipelineModules.Tokenize import Tokenize
from modules.dataLoader.BaseDataLoader import BaseDataLoader
from modules.dataLoader.mixin.DataLoaderText2ImageMixin import DataLoaderText2ImageMixin
from modules.util.enum.DataType import DataType

from wan_fixes.pipeline import PipelineContext, rewrite_definition

# What OneTrainer's own video data loaders cache and hand to the trainer.
IMAGE_NAMES = ["latent_image", "original_resolution", "crop_offset"]
AGGREGATE_NAMES = ["crop_resolution", "image_path"]
TEXT_NAMES = ["tokens", "tokens_mask", "text_encoder_hidden_state"]


class HostModel:
    """What a data loader asks of OneTrainer's model object: the networks, a dtype, and to be made ready."""

    def __init__(self, networks: Any) -> None:
        self.vae = networks.vae
        self.text_encoder = networks.text_encoder
        self.tokenizer = networks.tokenizer
        self.train_dtype = DataType.FLOAT_32
        self.autocast_context = torch.autocast("cpu", enabled=False)

    def materialize_only(self, *_: str) -> None: ...

    def eval(self) -> None: ...

    # What OneTrainer asked for the same until August 2026.

    def to(self, _: torch.device) -> None: ...

    def vae_to(self, _: torch.device) -> None: ...


class HostSetup:
    def prepare_text_caching(self, model: HostModel, config: Any) -> None: ...


class WanLoader(BaseDataLoader, DataLoaderText2ImageMixin):
    """`context` None leaves the definition as stock OneTrainer builds it."""

    context: PipelineContext | None = None

    def _preparation_modules(self, config: Any, model: HostModel) -> list[Any]:
        common = {"autocast_contexts": [model.autocast_context], "dtype": torch.float32}
        return [
            RescaleImageChannels("image", "image", in_range_min=0, in_range_max=1, out_range_min=-1, out_range_max=1),
            EncodeVAE(in_name="image", out_name="latent_image_distribution", vae=model.vae, **common),
            SampleVAEDistribution(in_name="latent_image_distribution", out_name="latent_image", mode="mean"),
            Tokenize("prompt", "tokens", "tokens_mask", tokenizer=model.tokenizer, max_token_length=32),
            EncodeT5Text(
                tokens_in_name="tokens",
                tokens_attention_mask_in_name="tokens_mask",
                hidden_state_out_name="text_encoder_hidden_state",
                pooled_out_name=None,
                text_encoder=model.text_encoder,
                add_layer_norm=True,
                hidden_state_output_index=-1,
                **common,
            ),
        ]

    def _cache_modules(self, config: Any, model: HostModel, model_setup: HostSetup) -> list[Any]:
        return self._cache_modules_from_names(
            model,
            model_setup,
            image_split_names=IMAGE_NAMES,
            image_aggregate_names=AGGREGATE_NAMES,
            text_split_names=TEXT_NAMES,
            sort_names=[*AGGREGATE_NAMES, *IMAGE_NAMES, *TEXT_NAMES, "prompt", "concept"],
            config=config,
            text_caching=True,
        )

    def _output_modules(self, config: Any, model: HostModel, model_setup: HostSetup) -> list[Any]:
        return self._output_modules_from_out_names(
            model,
            model_setup,
            output_names=[*AGGREGATE_NAMES, *IMAGE_NAMES, *TEXT_NAMES, "prompt"],
            config=config,
            vae=model.vae,
            autocast_context=[model.autocast_context],
            train_dtype=model.train_dtype,
        )

    def _debug_modules(self, config: Any, model: HostModel) -> list[Any]:
        return []

    def _create_mgds(self, config: Any, definition: list[Any], train_progress: Any, is_validation: bool = False) -> Any:
        if self.context is not None:
            rewrite_definition(definition, self.context)
        return super()._create_mgds(config, definition, train_progress, is_validation)

    def _create_dataset(
        self, config: Any, model: HostModel, model_setup: HostSetup, train_progress: Any, is_validation: bool = False
    ) -> Any:
        return DataLoaderText2ImageMixin._create_dataset(
            self,
            config,
            model,
            model_setup,
            train_progress,
            is_validation,
            aspect_bucketing_quantization=16,
            frame_dim_enabled=True,
            allow_video_files=True,
            vae_frame_dim=True,
            supports_inpainting=False,
        )
