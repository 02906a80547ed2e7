"""WAN's pipeline definition, of stock modules wherever there are any: these the plugin swaps for validated ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from mgds.pipelineModules.EncodeVAE import EncodeVAE
from mgds.pipelineModules.LoadVideo import LoadVideo
from mgds.pipelineModules.MapData import MapData
from mgds.pipelineModules.RescaleImageChannels import RescaleImageChannels
from mgds.pipelineModules.SampleVAEDistribution import SampleVAEDistribution
from mgds.pipelineModules.Tokenize import Tokenize
from modules.dataLoader.BaseDataLoader import BaseDataLoader
from modules.dataLoader.mixin.DataLoaderText2ImageMixin import DataLoaderText2ImageMixin

from wan_fixes.hosts.onetrainer.wan import conditions
from wan_fixes.hosts.onetrainer.wan.data_modules import EncodeFirstFrame, EncodeFirstImage, EncodeWanText, ShrinkMask
from wan_fixes.hosts.onetrainer.wan.model import WanModel
from wan_fixes.hosts.onetrainer.wan.vae_access import Tiled
from wan_fixes.wan.text import MAX_TOKENS, clean_prompt

_AGGREGATE = ["crop_resolution", "image_path"]
_LATENTS = ["latent_image", "original_resolution", "crop_offset"]
_TEXTS = ["tokens", "tokens_mask", "text_encoder_hidden_state"]


class WanDataLoader(BaseDataLoader, DataLoaderText2ImageMixin):
    """Batches: `latent_image` `[B, C, F, H, W]` (the VAE's own scale), `text_encoder_hidden_state` `[B, 512, D]`."""

    def _load_input_modules(self, config: Any, train_dtype: Any, vae_frame_dim: bool = False) -> list[Any]:
        # Pixels keep full precision up to the VAE, which has its own: bf16 has too few bits for 256 levels.
        loaded = super()._load_input_modules(config, config.vae.weight_dtype, vae_frame_dim=vae_frame_dim)
        for module in loaded:
            if isinstance(module, LoadVideo):
                module.target_frame_rate = self._variant.fps
        return loaded

    def _preparation_modules(self, config: Any, model: WanModel) -> list[Any]:
        modules = [
            RescaleImageChannels("image", "image", in_range_min=0, in_range_max=1, out_range_min=-1, out_range_max=1),
            EncodeVAE(
                in_name="image",
                out_name="latent_image_distribution",
                vae=model.vae,
                # No autocast: the latents are as precise as the VAE's weights, as in the reference.
                autocast_contexts=[Tiled() if model.vae.use_tiling else nullcontext()],
                dtype=model.vae.dtype,
            ),
            SampleVAEDistribution(in_name="latent_image_distribution", out_name="latent_image", mode="mean"),
        ]
        if model.variant.mode == "i2v":
            modules.append(EncodeFirstFrame(in_name="image", out_name=conditions.LATENTS, vae=model.vae))
        if model.image_encoder is not None:
            modules.append(
                EncodeFirstImage(
                    in_name="image",
                    out_name=conditions.IMAGE,
                    image_processor=model.image_processor,
                    image_encoder=model.image_encoder,
                    dtype=model.train_dtype.torch_dtype(),
                )
            )
        if config.masked_training:
            modules.append(
                ShrinkMask(
                    mask_name="mask",
                    latent_name="latent_image",
                    out_name="latent_mask",
                    temporal_compression=self._variant.temporal_compression,
                )
            )
        modules += [
            MapData(in_name="prompt", out_name="prompt", map_fn=clean_prompt),
            Tokenize(
                in_name="prompt",
                tokens_out_name="tokens",
                mask_out_name="tokens_mask",
                tokenizer=model.tokenizer,
                max_token_length=MAX_TOKENS,
            ),
            EncodeWanText(
                tokens_in_name="tokens",
                tokens_mask_in_name="tokens_mask",
                hidden_state_out_name="text_encoder_hidden_state",
                text_encoder=model.text_encoder,
                autocast_contexts=[model.autocast_context, model.text_encoder_autocast_context],
                dtype=model.train_dtype.torch_dtype(),
            ),
        ]
        return modules

    def _cache_modules(self, config: Any, model: WanModel, model_setup: Any) -> list[Any]:
        latents = self._latent_names(config, model)
        return self._cache_modules_from_names(
            model,
            model_setup,
            image_split_names=latents,
            image_aggregate_names=_AGGREGATE,
            text_split_names=_TEXTS,
            sort_names=[*_AGGREGATE, *latents, *_TEXTS, "prompt", "concept"],
            config=config,
            text_caching=True,
            before_cache_image_fun=self._before_encoding(model),
        )

    def _output_modules(self, config: Any, model: WanModel, model_setup: Any) -> list[Any]:
        return self._output_modules_from_out_names(
            model,
            model_setup,
            output_names=[*_AGGREGATE, *self._latent_names(config, model), *_TEXTS, "prompt"],
            config=config,
            before_cache_image_fun=self._before_encoding(model),
            vae=model.vae,
            autocast_context=[nullcontext()],
            train_dtype=model.train_dtype,
        )

    def _debug_modules(self, config: Any, model: WanModel) -> list[Any]:
        return []

    def _create_dataset(
        self, config: Any, model: WanModel, model_setup: Any, train_progress: Any, is_validation: bool = False
    ) -> Any:
        self._variant = model.variant
        return DataLoaderText2ImageMixin._create_dataset(
            self,
            config,
            model,
            model_setup,
            train_progress,
            is_validation,
            aspect_bucketing_quantization=model.variant.spatial_multiple,
            frame_dim_enabled=True,
            allow_video_files=True,
            vae_frame_dim=True,
            supports_inpainting=False,
        )

    @staticmethod
    def _before_encoding(model: WanModel) -> Callable[[], None]:
        def prepare() -> None:
            model.materialize_only(*model.sample_encoders())
            model.eval()

        return prepare

    @staticmethod
    def _latent_names(config: Any, model: WanModel) -> list[str]:
        names = list(_LATENTS)
        if model.variant.mode == "i2v":
            names.append(conditions.LATENTS)
        if model.image_encoder is not None:
            names.append(conditions.IMAGE)
        return [*names, "latent_mask"] if config.masked_training else names
