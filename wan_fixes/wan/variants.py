"""The WAN models that can be trained: how they are called, what they expect, what tells them apart.

Names are OneTrainer's model types, so that a preset means the same in both hosts. Never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wan_fixes.errors import UserError

T2V_BOUNDARY = 0.875
I2V_BOUNDARY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class WanVariant:
    """One released WAN model.

    Sources: the `config.json` files of the `Wan-AI/*-Diffusers` repositories; for the shifts of 2.2 and the
    boundaries `wan/configs/` of github.com/Wan-Video/Wan2.2.
    """

    name: str
    """OneTrainer's model type, for example `WAN_2_1_T2V_1_3B`."""
    label: str
    """For people."""
    short_label: str
    """For people, where there is little room: in menus."""
    repository: str
    """The diffusers-format repository on the Hugging Face Hub."""
    family: Literal["2.1", "2.2"]
    mode: Literal["t2v", "i2v", "ti2v"]
    fps: int
    """Frames per second that the model was trained on, and that clips are resampled to."""
    default_frames: int
    """Frames of a clip (4n + 1) that the reference samples with."""
    spatial_multiple: int
    """Width and height in pixels are multiples of this: the VAE's spatial compression times the patch size."""
    temporal_compression: int
    """Pixel frames per latent frame, after the first."""
    in_channels: int
    """Input channels of the transformer: what tells T2V (16), I2V (36) and TI2V (48) apart in a config."""
    heads: int
    """Attention heads of the released transformer."""
    layers: int
    """Blocks of the released transformer."""
    has_image_encoder: bool
    """Whether the transformer also attends to CLIP image embeddings (I2V of 2.1 alone)."""
    experts: Literal[1, 2]
    """1, or 2 where a high-noise expert (`transformer`) hands over to a low-noise one (`transformer_2`)."""
    boundary_ratio: float | None
    """The sigma at which the experts change; None with one expert."""
    default_shift: float
    """Timestep shift of the reference sampler."""
    standalone: bool
    """Whether the standalone host trains it; the others are for the OneTrainer host."""


VARIANTS: dict[str, WanVariant] = {
    variant.name: variant
    for variant in (
        WanVariant(
            name="WAN_2_1_T2V_1_3B",
            label="WAN 2.1 text-to-video 1.3B",
            short_label="WAN 2.1 T2V 1.3B",
            repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            family="2.1",
            mode="t2v",
            fps=16,
            default_frames=81,
            spatial_multiple=16,
            temporal_compression=4,
            in_channels=16,
            heads=12,
            layers=30,
            has_image_encoder=False,
            experts=1,
            boundary_ratio=None,
            default_shift=3.0,
            standalone=True,
        ),
        WanVariant(
            name="WAN_2_1_T2V_14B",
            label="WAN 2.1 text-to-video 14B",
            short_label="WAN 2.1 T2V 14B",
            repository="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            family="2.1",
            mode="t2v",
            fps=16,
            default_frames=81,
            spatial_multiple=16,
            temporal_compression=4,
            in_channels=16,
            heads=40,
            layers=40,
            has_image_encoder=False,
            experts=1,
            boundary_ratio=None,
            default_shift=3.0,
            standalone=True,
        ),
        WanVariant(
            name="WAN_2_1_I2V_14B",
            label="WAN 2.1 image-to-video 14B",
            short_label="WAN 2.1 I2V 14B",
            repository="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            family="2.1",
            mode="i2v",
            fps=16,
            default_frames=81,
            spatial_multiple=16,
            temporal_compression=4,
            in_channels=36,
            heads=40,
            layers=40,
            has_image_encoder=True,
            experts=1,
            boundary_ratio=None,
            default_shift=3.0,
            standalone=False,
        ),
        WanVariant(
            name="WAN_2_2_T2V_A14B",
            label="WAN 2.2 text-to-video A14B (two experts)",
            short_label="WAN 2.2 T2V A14B",
            repository="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            family="2.2",
            mode="t2v",
            fps=16,
            default_frames=81,
            spatial_multiple=16,
            temporal_compression=4,
            in_channels=16,
            heads=40,
            layers=40,
            has_image_encoder=False,
            experts=2,
            boundary_ratio=T2V_BOUNDARY,
            default_shift=12.0,
            standalone=False,
        ),
        WanVariant(
            name="WAN_2_2_I2V_A14B",
            label="WAN 2.2 image-to-video A14B (two experts)",
            short_label="WAN 2.2 I2V A14B",
            repository="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
            family="2.2",
            mode="i2v",
            fps=16,
            default_frames=81,
            spatial_multiple=16,
            temporal_compression=4,
            in_channels=36,
            heads=40,
            layers=40,
            has_image_encoder=False,
            experts=2,
            boundary_ratio=I2V_BOUNDARY,
            default_shift=5.0,
            standalone=False,
        ),
        WanVariant(
            name="WAN_2_2_TI2V_5B",
            label="WAN 2.2 text/image-to-video 5B",
            short_label="WAN 2.2 TI2V 5B",
            repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            family="2.2",
            mode="ti2v",
            fps=24,
            default_frames=121,
            spatial_multiple=32,
            temporal_compression=4,
            in_channels=48,
            heads=24,
            layers=30,
            has_image_encoder=False,
            experts=1,
            boundary_ratio=None,
            default_shift=5.0,
            standalone=False,
        ),
    )
}


def get_variant(name: str) -> WanVariant:
    """The variant of that name.

    Raises
    ------
    UserError
        If there is no such variant; the message lists those there are.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        raise UserError(
            f"not a WAN model type: {name!r}",
            reason="the model type decides frame rate, sizes and noise schedule",
            fix=f"use one of {', '.join(VARIANTS)}",
        ) from None
