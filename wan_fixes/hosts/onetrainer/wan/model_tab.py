"""WAN's parts on OneTrainer's model tab that no stock model has: the low-noise expert, and 2.1 I2V's image encoder."""

from __future__ import annotations

from typing import Any

from modules.util import path_util
from modules.util.enum.DataType import DataType

from wan_fixes.hosts.onetrainer.patches.wan_tabs import DTYPES
from wan_fixes.wan.variants import WanVariant


def add_parts(view: Any, variant: WanVariant, frame: Any, row: int, ui_state: Any) -> int:
    """Add a row for each of them from `row` on; returns the next free row."""
    ui = view.components
    if variant.experts == 2:
        ui.label(
            frame,
            row,
            0,
            "Override Low-Noise Expert / GGUF",
            tooltip="A file for transformer_2 in the place of the base model's. The field above is for the high-noise "
            "expert. If a GGUF file is used, the data type must be GGUF too",
        )
        ui.path_entry(
            frame, row, 1, ui_state, "transformer_2.model_name", mode="file", path_modifier=path_util.json_path_modifier
        )
        ui.label(frame, row, 3, "Low-Noise Expert Data Type", tooltip="The weight data type of transformer_2")
        dtypes = getattr(view, DTYPES)(include_gguf=True, include_a8=True)
        ui.options_kv(frame, row, 4, dtypes, ui_state, "transformer_2.weight_dtype")
        row += 1
    if variant.has_image_encoder:
        ui.label(
            frame, row, 3, "Image Encoder Data Type", tooltip="The weight data type of CLIP, which sees the first frame"
        )
        dtypes = [
            ("float32", DataType.FLOAT_32),
            ("bfloat16", DataType.BFLOAT_16),
            ("float16", DataType.FLOAT_16),
        ]
        ui.options_kv(frame, row, 4, dtypes, ui_state, "image_encoder.weight_dtype")
        row += 1
    return row
