"""Full fine-tuning of WAN: the transformers' own weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from modules.util.ModuleFilter import ModuleFilter
from modules.util.NamedParameterGroup import NamedParameterGroupCollection
from modules.util.optimizer_util import init_model_parameters

from wan_fixes.hosts.onetrainer.wan.model import WanModel
from wan_fixes.hosts.onetrainer.wan.setup import BaseWanSetup


class WanFineTuneSetup(BaseWanSetup):
    """All weights of the transformers that the layer filter names; text encoder and VAE stay as they are."""

    def trained_parameters(self, model: WanModel, part: str) -> Iterable[torch.nn.Parameter]:
        return getattr(model, part).parameters()

    def create_parameters(self, model: WanModel, config: Any) -> Any:
        groups = NamedParameterGroupCollection()
        for part in model.experts():
            self._create_model_part_parameters(
                groups,
                part,
                getattr(model, part),
                getattr(config, part),
                freeze=ModuleFilter.create(config),
                debug=config.debug_mode,
            )
        return groups

    def setup_model(self, model: WanModel, config: Any) -> None:
        self.encode_empty_prompt(model, config)
        parameters = self.create_parameters(model, config)
        self._setup_requires_grad(model, config)
        init_model_parameters(model, parameters, self.train_device)

    def after_optimizer_step(self, model: WanModel, config: Any, train_progress: Any) -> None:
        self._setup_requires_grad(model, config)

    def _setup_requires_grad(self, model: WanModel, config: Any) -> None:
        for part in ("text_encoder", "vae"):
            getattr(model, part).requires_grad_(False)
        for part in model.experts():
            self._setup_model_part_requires_grad(
                part, getattr(model, part), getattr(config, part), model.train_progress
            )
