"""Writes the whole model after a full fine-tune: a folder in diffusers' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from modules.modelSaver.mixin.DtypeModelSaverMixin import DtypeModelSaverMixin
from modules.util.enum.ModelFormat import ModelFormat

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.wan.model import WanModel


class WanModelSaver(DtypeModelSaverMixin):
    """Every part, so that the folder loads by itself, in `WanPipeline` and here."""

    def save(
        self, model: WanModel, output_model_format: Any, output_model_destination: str, dtype: torch.dtype | None
    ) -> None:
        if output_model_format not in (ModelFormat.DIFFUSERS, ModelFormat.INTERNAL):
            raise UserError(
                f"WAN cannot be saved as {output_model_format}",
                reason="a whole WAN model is written as a folder in diffusers' layout",
                fix="set output_model_format to DIFFUSERS",
            )
        pipeline = model.create_pipeline().to("cpu")
        exact = output_model_format == ModelFormat.INTERNAL
        saved = self._copy_pipeline_to_dtype(pipeline, None if exact else dtype, pipeline.tokenizer)
        Path(output_model_destination).mkdir(parents=True, exist_ok=True)
        saved.save_pretrained(output_model_destination, safe_serialization=True)
