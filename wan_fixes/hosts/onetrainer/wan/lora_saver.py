"""Writes the LoRA: one file, or one for each expert."""

from __future__ import annotations

import torch
from modules.modelSaver.mixin.LoRASaverMixin import LoRASaverMixin

from wan_fixes.hosts.onetrainer.wan.model import WanModel


class WanLoRASaver(LoRASaverMixin):  # type: ignore[misc]
    """OneTrainer's own writer, over the adapters of the model."""

    def _get_state_dict(self, model: WanModel) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        for _, lora in model.lora_parts():
            state |= lora.state_dict()
        return state | (model.lora_state_dict or {})
