"""LoRA training of WAN: an adapter on each expert."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from modules.module.LoRAModule import LoRAModuleWrapper
from modules.util.NamedParameterGroup import NamedParameterGroupCollection
from modules.util.optimizer_util import init_model_parameters

from wan_fixes.hosts.onetrainer.wan.adapters import load_adapter
from wan_fixes.hosts.onetrainer.wan.model import WanModel
from wan_fixes.hosts.onetrainer.wan.precision import TIME_EMBEDDER
from wan_fixes.hosts.onetrainer.wan.setup import BaseWanSetup

logger = logging.getLogger(__name__)


class WanLoRASetup(BaseWanSetup):
    """The model's own weights stay as they are."""

    def trained_parameters(self, model: WanModel, part: str) -> Iterable[torch.nn.Parameter]:
        lora = getattr(model, f"{part}_lora")
        return lora.parameters() if lora is not None else []

    def create_parameters(self, model: WanModel, config: Any) -> Any:
        groups = NamedParameterGroupCollection()
        for part, lora in model.lora_parts():
            self._create_model_part_parameters(groups, part, lora, getattr(config, part))
        return groups

    def setup_model(self, model: WanModel, config: Any) -> None:
        for part in model.experts():
            lora = LoRAModuleWrapper(getattr(model, part), part, config, config.layer_filter.split(","))
            state = {k: v for k, v in (model.lora_state_dict or {}).items() if k.startswith(f"{part}.")}
            if state:  # of two experts, one may begin anew
                load_adapter(lora, state, config, model.lora_files.get(part))
            lora.set_dropout(config.dropout_probability)
            lora.to(dtype=config.lora_weight_dtype.torch_dtype())
            for name, layer in lora.lora_modules.items():
                if TIME_EMBEDDER in name:  # it computes in fp32, where nothing casts for it
                    layer.to(dtype=torch.float32)
            lora.hook_to_module()
            setattr(model, f"{part}_lora", lora)
        _warn_of_experts_left_out(model)
        model.lora_state_dict = None
        self.encode_empty_prompt(model, config)
        parameters = self.create_parameters(model, config)
        self._setup_requires_grad(model, config)
        init_model_parameters(model, parameters, self.train_device)

    def after_optimizer_step(self, model: WanModel, config: Any, train_progress: Any) -> None:
        self._setup_requires_grad(model, config)

    def _setup_requires_grad(self, model: WanModel, config: Any) -> None:
        for part in (*model.experts(), "text_encoder", "vae"):
            getattr(model, part).requires_grad_(False)
        for part, lora in model.lora_parts():
            self._setup_model_part_requires_grad(part, lora, getattr(config, part), model.train_progress)


def _warn_of_experts_left_out(model: WanModel) -> None:
    """A backup holds both experts' adapters, also where this run has one expert only."""
    parts = {name.partition(".")[0] for name in model.lora_state_dict or {}} - set(model.experts())
    if parts:
        logger.warning(
            "the LoRA's weights for %s are left out as that expert is, and will not be in what this training saves",
            " and ".join(sorted(parts)),
        )
