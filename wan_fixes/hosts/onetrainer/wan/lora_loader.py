"""Reads a LoRA to go on from: a backup of ours, or a file in another program's format."""

from __future__ import annotations

from typing import Any

from modules.modelLoader.mixin.LoRALoaderMixin import LoRALoaderMixin

from wan_fixes.hosts.onetrainer.wan.model import WanModel


class WanLoRALoader(LoRALoaderMixin):  # type: ignore[misc]
    """OneTrainer's own reader; backups hold the raw adapters of all experts in one file."""

    def load(self, model: WanModel, model_names: Any) -> None:
        self._load(model, model_names)

    def _denoising_module(self, model: WanModel) -> Any:
        return getattr(model, model.experts()[0])
