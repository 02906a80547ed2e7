"""What is wanted of a model, and the ways to do it, those with less memory too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from wan_fixes.models.hardware import Hardware
from wan_fixes.models.manifest import Manifest
from wan_fixes.models.spec import ModelSpec, VariantSpec
from wan_fixes.models.vram import PRECISION_BYTES, VramEstimate, default_of, estimate, spatial_multiple

_QUANTISED: Final = "fp8"
_OFFLOADS: Final = (0.25, 0.5, 0.75, 0.9)
_TEMPORAL_STRIDE: Final = 4

Issue = tuple[str, str]
"""What is wrong, and what helps ("" where something else says it)."""


class GenerationMode(str, Enum):
    """What clips are made from: text, an image and text, or either."""

    T2V = "t2v"
    I2V = "i2v"
    TI2V = "ti2v"


_SERVES: Final = {
    GenerationMode.T2V: {GenerationMode.T2V},
    GenerationMode.I2V: {GenerationMode.I2V},
    GenerationMode.TI2V: {GenerationMode.T2V, GenerationMode.I2V, GenerationMode.TI2V},
}


class FallbackKind(str, Enum):
    """Ways to make do with less memory, in the order in which they are tried."""

    AS_ASKED = "as asked"
    QUANTISED = "quantised"
    SMALLER_MODEL = "smaller model"
    CPU_OFFLOAD = "CPU offload"


@dataclass(frozen=True)
class WantedSettings:
    """What a model is to do; see `vram.estimate` for what the settings mean.

    Attributes
    ----------
    mode:
        None for what the model does.
    """

    frames: int
    height: int
    width: int
    mode: GenerationMode | None = None
    precision: str = "bf16"
    text_encoder_precision: str = "bf16"
    vae_precision: str = "fp32"
    vae_tiling: bool = False
    batch: int = 1
    lora_rank: int = 16
    gradient_checkpointing: bool = True
    offload: float = 0.0
    training: bool = True

    @classmethod
    def of(cls, spec: ModelSpec, **changes: Any) -> WantedSettings:
        """A model's defaults, with those changes that are not None. Raises ModelError where it has no default."""
        given = {name: value for name, value in changes.items() if value is not None}
        size = {name: default_of(spec, name) for name in ("frames", "height", "width") if name not in given}
        return cls(**{"precision": spec.defaults.get("precision", "bf16"), **size, **given})

    def estimate(self, spec: ModelSpec) -> VramEstimate:
        """What a model takes for it. Raises ModelError like `vram.estimate`."""
        return estimate(
            spec,
            precision=self.precision,
            text_encoder_precision=self.text_encoder_precision,
            vae_precision=self.vae_precision,
            vae_tiling=self.vae_tiling,
            frames=self.frames,
            height=self.height,
            width=self.width,
            batch=self.batch,
            lora_rank=self.lora_rank,
            gradient_checkpointing=self.gradient_checkpointing,
            offload=self.offload,
            training=self.training,
        )


@dataclass(frozen=True)
class Fallback:
    """One way to do it, and whether its memory is there.

    Attributes
    ----------
    model:
        Its name in the manifest.
    fits_gpu, fits_main_memory:
        None where nobody knows how much there is.
    """

    kind: FallbackKind
    model: str
    wanted: WantedSettings
    estimate: VramEstimate
    fits_gpu: bool | None
    fits_main_memory: bool | None

    @property
    def fits(self) -> bool | None:
        """Whether both do; None where that cannot be known."""
        both = (self.fits_gpu, self.fits_main_memory)
        return False if False in both else None if None in both else True

    @property
    def label(self) -> str:
        """For people."""
        if self.kind is FallbackKind.QUANTISED:
            return f"{self.model} in {self.wanted.precision}"
        if self.kind is FallbackKind.CPU_OFFLOAD:
            return f"{self.model}, {self.wanted.offload:.0%} offloaded"
        return self.model

    def as_json(self) -> dict[str, Any]:
        """For programs: docs/vram.md describes it."""
        return {
            "kind": self.kind.value,
            "model": self.model,
            "precision": self.wanted.precision,
            "text_encoder_precision": self.wanted.text_encoder_precision,
            "offload": self.wanted.offload,
            "total": self.estimate.total,
            "main_memory": self.estimate.main_memory,
            "fits_gpu": self.fits_gpu,
            "fits_main_memory": self.fits_main_memory,
        }


def serves(spec: ModelSpec, mode: GenerationMode) -> bool:
    """Whether a model makes clips from that."""
    return mode in _SERVES[GenerationMode(spec.mode)]


def wrong_size(spec: ModelSpec, wanted: WantedSettings) -> Iterator[Issue]:
    """What stands against the size and length that are wanted."""
    step = spatial_multiple(spec)
    if wanted.width % step or wanted.height % step:
        width, height = (max(step, round(side / step) * step) for side in (wanted.width, wanted.height))
        yield (
            f"{wanted.width}x{wanted.height} is no size for {spec.label}: its sides are multiples of {step}",
            f"take {width}x{height}",
        )
    over = (wanted.frames - 1) % _TEMPORAL_STRIDE
    if over:
        below = wanted.frames - over
        yield (
            f"{wanted.frames} frames are no length for {spec.label}: it takes 1, and then groups of {_TEMPORAL_STRIDE}",
            f"take {below} or {below + _TEMPORAL_STRIDE} frames",
        )


def every_way(
    spec: ModelSpec, variant: VariantSpec, wanted: WantedSettings, hardware: Hardware, manifest: Manifest
) -> Iterator[Fallback]:
    """The ways to do it, whether they fit or not: first as it is asked for, then those with less memory."""

    def way(kind: FallbackKind, settings: WantedSettings, model: ModelSpec = spec, name: str = "") -> Fallback:
        needs = settings.estimate(model)
        fits_gpu = _is_enough(hardware.vram_free, needs.total)
        fits_main_memory = _is_enough(hardware.main_memory_free, needs.main_memory)
        name = name or spec.short_name(variant.name)
        return Fallback(kind, name, settings, needs, fits_gpu, fits_main_memory)

    yield way(FallbackKind.AS_ASKED, wanted)
    if PRECISION_BYTES[wanted.precision] > PRECISION_BYTES[_QUANTISED]:
        small = replace(wanted, precision=_QUANTISED, text_encoder_precision=_QUANTISED)
        yield way(FallbackKind.QUANTISED, small)
    for fallback in spec.fallbacks:
        other, its_variant = manifest.find(fallback)
        if serves(other, wanted.mode or GenerationMode(spec.mode)) and not list(wrong_size(other, wanted)):
            yield way(FallbackKind.SMALLER_MODEL, wanted, other, other.short_name(its_variant.name))
    for offload in _OFFLOADS:
        if offload > wanted.offload:
            yield way(FallbackKind.CPU_OFFLOAD, replace(wanted, offload=offload))


def _is_enough(free: int | None, needed: int) -> bool | None:
    return None if free is None else needed <= free
