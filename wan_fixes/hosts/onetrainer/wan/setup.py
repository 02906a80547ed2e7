"""What LoRA training and full fine-tuning of WAN share: preparing the model, predicting, the loss."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import modules.util.multi_gpu_util as multi
import torch
from modules.modelSetup.mixin.ModelSetupDiffusionLossMixin import ModelSetupDiffusionLossMixin
from modules.modelSetup.mixin.ModelSetupNoiseMixin import ModelSetupNoiseMixin
from modules.modelSetup.mixin.ModelSetupText2ImageMixin import ModelSetupText2ImageMixin
from modules.util.checkpointing_util import enable_checkpointing

from wan_fixes.hosts.onetrainer.wan import conditions
from wan_fixes.hosts.onetrainer.wan.conditions import keeps_first_frame, transformer_inputs
from wan_fixes.hosts.onetrainer.wan.configuration import check_configuration
from wan_fixes.hosts.onetrainer.wan.model import PART_OF, WanModel
from wan_fixes.hosts.onetrainer.wan.older_hosts import SetupBase
from wan_fixes.hosts.onetrainer.wan.predict import (
    bounds,
    choose_expert,
    expert_of,
    loss_index,
    training_sigmas,
    validation_sigmas,
)
from wan_fixes.hosts.onetrainer.wan.text_offloading import offload_text_encoder
from wan_fixes.wan.flow import add_noise, velocity_target
from wan_fixes.wan.latents import normalize_latents
from wan_fixes.wan.timesteps import NUM_TRAIN_TIMESTEPS, Expert, sigmas_to_timesteps


class BaseWanSetup(
    SetupBase,
    ModelSetupDiffusionLossMixin,
    ModelSetupNoiseMixin,
    ModelSetupText2ImageMixin,
    metaclass=ABCMeta,
):
    """OneTrainer finds `LAYER_PRESETS` on the class, for its menu of layers."""

    LAYER_PRESETS: ClassVar[dict[str, list[str]]] = {
        "attn-mlp": ["attn1", "attn2", "ffn"],
        "attn-only": ["attn1", "attn2"],
        "blocks": ["blocks"],
        "full": [],
    }

    @abstractmethod
    def trained_parameters(self, model: WanModel, part: str) -> Iterable[torch.nn.Parameter]:
        """What an optimizer may change of one transformer."""

    def setup_optimizations(self, model: WanModel, config: Any) -> None:
        check_configuration(config, model.variant)  # again, for the script that measures losses without a trainer
        if len(experts := model.experts()) == 1:
            bounds(model, config, expert_of(experts[0]))  # raises where nothing is left to train
        super().setup_optimizations(model, config)
        for part in model.experts():
            self._setup_model_part(model, config, part, getattr(config, part), _enable_checkpointing)
            self._set_attention_backend(getattr(model, part), config.attention_mechanism, mask=False)
        self._setup_model_part(
            model, config, "text_encoder", config.text_encoder, offload_text_encoder, disable_fp16_autocast=True
        )
        if config.vae_tiling:
            model.vae.enable_tiling()
        for part in model.sample_encoders():
            self._setup_model_part(model, config, part, getattr(config, part))

    def encode_empty_prompt(self, model: WanModel, config: Any) -> None:
        """What stands for a dropped caption: the embedding that guidance works against when sampling."""
        if config.text_encoder.dropout_probability > 0.0:
            model.materialize_only("text_encoder")
            model.empty_prompt = model.encode_text(text=[""])
            self.setup_train_device(model, config)

    def setup_train_device(self, model: WanModel, config: Any) -> None:
        """Move the expert of the coming step there, and what encodes samples while training."""
        expert = self._expert_at(model, config, model.train_progress.global_step)
        encoders = [] if config.latent_caching else ["text_encoder", *model.sample_encoders()]
        model.materialize_only(PART_OF[expert], *encoders)
        for encoder in ("text_encoder", *model.sample_encoders()):
            getattr(model, encoder).eval()
        for part in model.experts():
            getattr(model, part).train(getattr(config, part).train)

    def prepare_text_caching(self, model: WanModel, config: Any) -> None:
        model.materialize_only("text_encoder")
        model.eval()

    def predict(
        self, model: WanModel, batch: dict[str, Any], config: Any, train_progress: Any, *, deterministic: bool = False
    ) -> dict[str, Any]:
        """Predicted and true velocity `[B, C, F, H, W]`; in validation, of every fixed noise level in turn."""
        seed = 0 if deterministic else train_progress.global_step * multi.world_size() + multi.rank()
        generator = torch.Generator(device=config.train_device).manual_seed(seed)
        with model.autocast_context:
            latents = normalize_latents(batch["latent_image"].float(), model.vae.config)
            noise = self._create_noise(latents, config, generator)
            target = velocity_target(latents, noise)
            if not deterministic:
                expert = self._expert_at(model, config, train_progress.global_step)
                sigmas = training_sigmas(model, config, expert, len(latents), generator)
                batch = _with_dropped_captions(model, batch, config.text_encoder.dropout_probability, generator)
                predicted = self._velocity(model, batch, expert, latents, noise, sigmas)
                return _model_output(predicted, target, sigmas)
            predictions, levels = [], []
            experts = [expert_of(part) for part in model.experts()]
            for expert, grid in validation_sigmas(model, config, experts, generator.device):
                for level in grid:
                    sigmas = level.expand(len(latents))
                    predictions.append(self._velocity(model, batch, expert, latents, noise, sigmas))
                    levels.append(sigmas)
            return _model_output(torch.cat(predictions), target.repeat(len(levels), 1, 1, 1, 1), torch.cat(levels))

    def calculate_loss(self, model: WanModel, batch: dict[str, Any], data: dict[str, Any], config: Any) -> torch.Tensor:
        batch, data = _denoised(model, batch, data)
        return self._flow_matching_losses(
            batch=_repeated(batch, len(data["predicted"]) // len(batch["loss_weight"])),
            data=data,
            config=config,
            train_device=self.train_device,
            sigmas=torch.empty(NUM_TRAIN_TIMESTEPS),  # only how many there are is looked at
        ).mean()

    def _expert_at(self, model: WanModel, config: Any, global_step: int) -> Expert:
        parts = model.experts()
        trained = [part for part in parts if any(p.requires_grad for p in self.trained_parameters(model, part))]
        return choose_expert(model, config, [expert_of(part) for part in trained or parts], global_step)

    def _velocity(
        self,
        model: WanModel,
        batch: dict[str, Any],
        expert: Expert,
        latents: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
    ) -> torch.Tensor:
        transformer = model.activate(PART_OF[expert])
        dtype = model.train_dtype.torch_dtype()
        inputs = transformer_inputs(
            model,
            transformer,
            add_noise(latents, noise, sigmas).to(dtype),
            sigmas_to_timesteps(sigmas),
            condition=latents if keeps_first_frame(model, latents) else batch.get(conditions.LATENTS),
            image_embeds=batch.get(conditions.IMAGE),
        )
        embeddings = batch["text_encoder_hidden_state"].to(dtype)
        return transformer(**inputs, encoder_hidden_states=embeddings, return_dict=True).sample


def _model_output(predicted: torch.Tensor, target: torch.Tensor, sigmas: torch.Tensor) -> dict[str, Any]:
    return {"loss_type": "target", "timestep": loss_index(sigmas), "predicted": predicted, "target": target}


def _with_dropped_captions(
    model: WanModel, batch: dict[str, Any], probability: float, generator: torch.Generator
) -> dict[str, Any]:
    if model.empty_prompt is None:
        return batch
    name = "text_encoder_hidden_state"
    embeddings = batch[name]
    dropped = torch.rand(len(embeddings), generator=generator, device=generator.device) < probability
    return batch | {name: torch.where(dropped.view(-1, 1, 1), model.empty_prompt.to(embeddings), embeddings)}


def _denoised(model: WanModel, batch: dict[str, Any], data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Batch and data without a first frame that was given: what is predicted there is never used when sampling."""
    if not keeps_first_frame(model, data["target"]):
        return batch, data
    names = [name for name in ("predicted", "target", "prior_target") if name in data]
    masks = [name for name in ("latent_mask",) if name in batch]
    return (
        batch | {name: batch[name][:, :, 1:] for name in masks},
        data | {name: data[name][:, :, 1:] for name in names},
    )


def _repeated(batch: dict[str, Any], levels: int) -> dict[str, Any]:
    """The batch as the loss sees it, when each sample was predicted at several noise levels."""
    if levels == 1:
        return batch
    names = [name for name in ("loss_weight", "latent_mask") if name in batch]
    return batch | {name: torch.cat([batch[name]] * levels) for name in names}


def _enable_checkpointing(transformer: Any, config: Any, part: Any) -> Any:
    # Not the text: all blocks read one tensor, and what the first one has read would be away from the second.
    return enable_checkpointing(transformer, config, part, config.compile, [(transformer.blocks, ["hidden_states"])])
