"""Reads a LoRA to go on from: a backup of ours, or files in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import torch
from modules.modelLoader.mixin.LoRALoaderMixin import LoRALoaderMixin
from safetensors.torch import load_file

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.wan.lora_files import expert_files
from wan_fixes.hosts.onetrainer.wan.model import PART_OF, WanModel

_SIDES = {"lora_down.weight": ("in_features", 1), "lora_up.weight": ("out_features", 0)}
"""The side of a LoRA's matrix that has to fit its layer."""


class WanLoRALoader(LoRALoaderMixin):
    """OneTrainer's own reader of formats, for every expert, and a check that the LoRA is of this model."""

    def load(self, model: WanModel, model_names: Any) -> None:
        """Fill `model.lora_state_dict` and `model.lora_files`; nothing happens where no LoRA is named.

        Raises
        ------
        UserError
            If there is no such file, it cannot be read, or it is another model's.
        """
        if not model_names.lora:
            return
        path = Path(model_names.lora)
        if not model.experts():  # the converter can be asked without one, and then loads nothing before this
            raise _unusable(path, "its layers are known by the base model's", "name the base model too")
        if path.is_dir():
            self._load(model, model_names)  # a backup
            model.lora_files = dict.fromkeys(model.experts(), path)
            return
        state: dict[str, torch.Tensor] = {}
        model.lora_files = _files(model, path)
        for part, file in model.lora_files.items():
            state |= self._read(model, part, file)
        model.lora_state_dict = state

    def _read(self, model: WanModel, part: str, file: Path) -> dict[str, torch.Tensor]:
        try:
            canonical = self._to_canonical(model, load_file(file))
        except (OSError, safetensors.SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise _unusable(file, str(error), "name a complete .safetensors file of a WAN LoRA") from error
        first = PART_OF["high"]
        _check_layers(canonical, first, getattr(model, part), file)
        return {f"{part}.{name.removeprefix(f'{first}.')}": tensor for name, tensor in canonical.items()}

    def _denoising_module(self, model: WanModel) -> Any:
        return getattr(model, model.experts()[0])


def _files(model: WanModel, path: Path) -> dict[str, Path]:
    """Which file is for which transformer."""
    parts = model.experts()
    if model.variant.experts == 1:
        return {parts[0]: path}
    files = {PART_OF[expert]: file for expert, file in expert_files(path).items() if file.is_file()}
    files = {part: file for part, file in files.items() if part in parts}
    if files:
        return files
    if len(parts) == 1:
        return {parts[0]: path}
    names = " and ".join(file.name for file in expert_files(path).values())
    raise _unusable(path, "it does not say which expert it belongs to", f"name the files {names}")


def _check_layers(state: dict[str, torch.Tensor], prefix: str, transformer: Any, file: Path) -> None:
    layers = dict(transformer.named_modules())
    for key, tensor in state.items():
        name, side = next(
            (
                (key.removeprefix(f"{prefix}.").removesuffix(f".{end}"), side)
                for end, side in _SIDES.items()
                if end in key
            ),
            (None, None),
        )
        if name is None or side is None:
            continue
        layer = layers.get(name)
        if layer is None:
            raise _unusable(file, f"the model has no layer {name}", "name a LoRA of this model type")
        attribute, dimension = side
        if (wanted := getattr(layer, attribute)) != tensor.shape[dimension]:
            raise _unusable(
                file,
                f"{key} is made for a layer of {tensor.shape[dimension]} numbers, and the model's has {wanted}",
                "name a LoRA of this model type",
            )


def _unusable(file: Path, reason: str, fix: str) -> UserError:
    return UserError("the LoRA cannot be used", path=file, reason=reason, fix=fix, module="lora")
