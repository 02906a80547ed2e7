"""What WAN builds on and OneTrainer has only since August 2026: parts moved and prepared by name.

Where the checkout has these itself, its own are used; told by the symbols, not by a version.
"""

from __future__ import annotations

from typing import Any

import torch
from modules.model.BaseModel import BaseModel
from modules.modelSetup.BaseModelSetup import BaseModelSetup
from modules.util.dtype_util import create_autocast_context, disable_fp16_autocast_context
from modules.util.quantization_util import quantize_layers
from modules.util.torch_util import torch_gc

MOVES_PARTS = hasattr(BaseModel, "materialize")
PREPARES_PARTS = hasattr(BaseModelSetup, "_setup_model_part")


class MovedParts(BaseModel):
    """The parts of a model, moved by the names of `ModelType.model_parts()`."""

    @property
    def train_device(self) -> torch.device:
        return torch.device(self.train_config.train_device)

    @property
    def temp_device(self) -> torch.device:
        return torch.device(self.train_config.temp_device)

    def materialize(self, *parts: str) -> None:
        for part in parts:
            self._move_part(part, self.train_device)

    def evict(self, *parts: str) -> None:
        for part in parts or self.model_type.model_parts():
            self._move_part(part, self.temp_device)
        torch_gc()

    def materialize_only(self, *parts: str) -> None:
        others = [part for part in self.model_type.model_parts() if part not in parts]
        if others:
            self.evict(*others)
        self.materialize(*parts)

    def to(self, device: torch.device) -> None:
        """Every part; the trainer calls it with the one device or the other."""
        move = self.evict if torch.device(device) == self.temp_device else self.materialize
        move(*self.model_type.model_parts())

    def vae_to(self, device: torch.device) -> None:
        move = self.evict if torch.device(device) == self.temp_device else self.materialize
        move("vae")

    def eval(self) -> None:
        for part in self._present():
            getattr(self, part).eval()

    def adapters(self) -> list[Any]:
        loras = (getattr(self, f"{part}_lora", None) for part in self.model_type.model_parts())
        return [lora for lora in loras if lora is not None]

    def _present(self) -> list[str]:
        return [part for part in self.model_type.model_parts() if getattr(self, part) is not None]

    def _move_part(self, part: str, device: torch.device) -> None:
        conductor = getattr(self, f"{part}_offload_conductor", None)
        component = conductor if conductor is not None else getattr(self, part)
        for moved in (component, getattr(self, f"{part}_lora", None)):
            if moved is not None:
                moved.to(device)


class PreparedParts(BaseModelSetup):
    """Checkpointing, autocast and quantisation of each part."""

    def setup_optimizations(self, model: Any, config: Any) -> None:
        model.autocast_context, model.train_dtype = create_autocast_context(
            self.train_device, config.train_dtype, config.enable_autocast_cache
        )

    def _setup_model_part(
        self,
        model: Any,
        config: Any,
        attr: str,
        config_part: Any,
        checkpointing_fn: Any = None,
        *,
        disable_fp16_autocast: bool = False,
    ) -> None:
        module = getattr(model, attr)
        if module is None:
            return
        if checkpointing_fn is not None:
            setattr(model, f"{attr}_offload_conductor", checkpointing_fn(module, config, config_part))
        dtype = model.train_dtype
        if disable_fp16_autocast:
            context, dtype = disable_fp16_autocast_context(
                self.train_device, config.train_dtype, config.fallback_train_dtype, config.enable_autocast_cache
            )
            setattr(model, f"{attr}_autocast_context", context)
            setattr(model, f"{attr}_train_dtype", dtype)
        quantize_layers(module, self.train_device, dtype, config)


ModelBase: Any = BaseModel if MOVES_PARTS else MovedParts
SetupBase: Any = BaseModelSetup if PREPARES_PARTS else PreparedParts
