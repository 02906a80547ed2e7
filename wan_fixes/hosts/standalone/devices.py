"""Where a model's parts are, and in which precision: OneTrainer's names for torch's, and what is on the device when."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext

import torch

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.model import WanModel
from wan_fixes.hosts.standalone.preset import Preset

DTYPES = {"FLOAT_32": torch.float32, "BFLOAT_16": torch.bfloat16, "FLOAT_16": torch.float16}
PARTS = ("text_encoder", "vae", "transformer", "transformer_2")


def pick_device(preset: Preset) -> torch.device:
    """The training device. Raises ``UserError`` when the preset names one that is not there."""
    if preset.train_device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(preset.train_device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            '"train_device" cannot be used',
            path=preset.path,
            reason=f"it is {preset.train_device!r}, and PyTorch finds {torch.cuda.device_count()} CUDA devices",
            fix="install PyTorch with CUDA, or remove the field to train on what there is",
        )
    return device


def weight_dtypes(preset: Preset) -> dict[str, torch.dtype]:
    """Precision of each part's weights, as `load_model` takes it."""
    return {
        "transformer": DTYPES[preset.transformer_weight_dtype],
        "text_encoder": DTYPES[preset.text_encoder_weight_dtype],
        "vae": DTYPES[preset.vae_weight_dtype],
    }


def autocast(preset: Preset, device: torch.device) -> AbstractContextManager[object]:
    """The precision of the forward pass: bf16 where the preset trains in it, else that of the weights."""
    if preset.train_dtype == "FLOAT_32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[preset.train_dtype])


class Placement:
    """Keeps on the training device what is needed there, and all else on the CPU."""

    def __init__(self, model: WanModel, device: torch.device) -> None:
        self._model = model
        self._device = device

    def use(self, *names: str) -> None:
        """Move these parts to the training device and the others off it."""
        if self._device.type == "cpu":
            return
        # what leaves goes first: the device need not hold both
        for name in sorted(PARTS, key=lambda name: name in names):
            part = getattr(self._model, name)
            if part is not None:
                part.to(self._device if name in names else "cpu")
        gc.collect()
        torch.cuda.empty_cache()
