"""Writes the LoRA: one file, or with two experts one for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from modules.modelSaver.mixin.LoRASaverMixin import LoRASaverMixin
from modules.util.enum.ModelFormat import ModelFormat

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.wan.lora_files import expert_file
from wan_fixes.hosts.onetrainer.wan.model import PART_OF, WanModel
from wan_fixes.hosts.onetrainer.wan.predict import expert_of


class WanLoRASaver(LoRASaverMixin):
    """OneTrainer's own writer. A backup is one file with the raw adapters of all experts."""

    def __init__(self) -> None:
        super().__init__()
        self._part: str | None = None

    def save(
        self, model: WanModel, output_model_format: Any, output_model_destination: str, dtype: torch.dtype | None
    ) -> None:
        offered = model.model_type.supported_lora_formats()
        if output_model_format not in (*offered, ModelFormat.INTERNAL):
            raise UserError(
                f"a WAN LoRA cannot be saved as {output_model_format}",
                reason="this is no format of a LoRA that other programs read for WAN",
                fix=f"set output_model_format to {' or '.join(str(kind) for kind in offered)}",
            )
        if output_model_format == ModelFormat.INTERNAL or model.variant.experts == 1:
            super().save(model, output_model_format, output_model_destination, dtype)
            return
        whole = self._get_state_dict(model)
        try:
            for part in PART_OF.values():
                if any(name.startswith(f"{part}.") for name in whole):
                    self._part = part
                    path = expert_file(Path(output_model_destination), expert_of(part))
                    super().save(model, output_model_format, str(path), dtype)
        finally:
            self._part = None

    def _get_state_dict(self, model: WanModel) -> dict[str, torch.Tensor]:
        """All adapters under the names of their parts; or one, under the name that the formats know.

        A LoRA that was read and never set up, as the converter does it, is saved as it was read.
        """
        state: dict[str, torch.Tensor] = {}
        for _, lora in model.lora_parts():
            state |= lora.state_dict()
        state |= model.lora_state_dict or {}
        if self._part is None:
            return state
        prefix = f"{self._part}."
        return {
            f"{PART_OF['high']}.{name.removeprefix(prefix)}": tensor
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
