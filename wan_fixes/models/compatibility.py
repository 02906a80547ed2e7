"""Whether a model does what is wanted of it on this machine, before anything is loaded; and what would, if it does not.

Nothing is changed by itself: what would fit is named, with what it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from wan_fixes.health.text import size_text
from wan_fixes.models.components import find_problems
from wan_fixes.models.fallbacks import (
    Fallback,
    FallbackKind,
    Issue,
    WantedSettings,
    every_way,
    serves,
    wrong_size,
)
from wan_fixes.models.fetching import SAFETY_MARGIN
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.installed import ModelStatus
from wan_fixes.models.manifest import Manifest
from wan_fixes.models.spec import ModelSpec, VariantSpec
from wan_fixes.models.vram import Phase, VramEstimate


class ModelCompatibility(str, Enum):
    """FULLY: as it is asked for. PARTIALLY: not without a change that is named, or it could not be found out.

    INCOMPATIBLE: not with this model, or not with this memory.
    """

    FULLY_COMPATIBLE = "FULLY_COMPATIBLE"
    PARTIALLY_COMPATIBLE = "PARTIALLY_COMPATIBLE"
    INCOMPATIBLE = "INCOMPATIBLE"


@dataclass(frozen=True)
class CompatibilityCheck:
    """What `check_compatibility` found.

    Attributes
    ----------
    issues:
        What stands against it as it is asked for.
    unknown:
        What could not be found out.
    recommendations:
        What helps.
    estimate:
        As it is asked for.
    tried:
        The ways that were looked at, the first of which is what is asked for; no more once one fits.
    chosen:
        The first of those that fits; None where none does, where that cannot be known, or where no memory would help.
    """

    model: str
    level: ModelCompatibility
    issues: tuple[str, ...]
    unknown: tuple[str, ...]
    recommendations: tuple[str, ...]
    estimate: VramEstimate
    tried: tuple[Fallback, ...]
    chosen: Fallback | None

    @property
    def fits_as_asked(self) -> bool:
        """Whether nothing that is known stands against it."""
        return not self.issues

    def as_json(self) -> dict[str, Any]:
        """For programs: docs/vram.md describes it."""
        return {
            "model": self.model,
            "level": self.level.value,
            "issues": list(self.issues),
            "unknown": list(self.unknown),
            "recommendations": list(self.recommendations),
            "estimate": self.estimate.as_json(),
            "tried": [fallback.as_json() for fallback in self.tried],
            "chosen": None if self.chosen is None else self.chosen.as_json(),
        }


def check_compatibility(
    spec: ModelSpec,
    variant: VariantSpec,
    wanted: WantedSettings,
    hardware: Hardware,
    *,
    manifest: Manifest,
    status: ModelStatus | None = None,
) -> CompatibilityCheck:
    """Compare what is wanted with what the model does and what the machine has.

    Parameters
    ----------
    manifest:
        Where other models are looked for.
    status:
        What is on the disk of the model; None to leave that out.

    Raises
    ------
    ModelError
        INVALID_CONFIG, where `wanted` has a setting that is none.
    """
    asked = wanted.estimate(spec)
    # What no memory and no disk would change.
    misfits = [*_wrong_mode(spec, wanted, manifest), *wrong_size(spec, wanted)]
    lacks, unknown = _lacks(spec, variant, status, hardware)
    tried: list[Fallback] = []
    for fallback in every_way(spec, variant, wanted, hardware, manifest):
        tried.append(fallback)
        if fallback.fits is not False:
            break
    chosen = tried[-1] if tried[-1].fits and not misfits else None
    lacks = [*_memory_lacks(tried[0], hardware), *lacks]
    unknown += _unknown_memory(hardware)
    if misfits or tried[-1].fits is False:
        level = ModelCompatibility.INCOMPATIBLE
    elif lacks or unknown:
        level = ModelCompatibility.PARTIALLY_COMPATIBLE
    else:
        level = ModelCompatibility.FULLY_COMPATIBLE
    recommendations = [*(fix for _, fix in [*misfits, *lacks]), *_advice(tried, misfits)]
    return CompatibilityCheck(
        model=spec.short_name(variant.name),
        level=level,
        issues=tuple(issue for issue, _ in [*misfits, *lacks]),
        unknown=tuple(unknown),
        recommendations=tuple(dict.fromkeys(filter(None, recommendations))),  # each once
        estimate=asked,
        tried=tuple(tried),
        chosen=chosen,
    )


def _wrong_mode(spec: ModelSpec, wanted: WantedSettings, manifest: Manifest) -> Iterator[Issue]:
    if wanted.mode is None or serves(spec, wanted.mode):
        return
    others = [
        other.short_name(other.default_variant) for other in manifest.models.values() if serves(other, wanted.mode)
    ]
    yield (
        f"{spec.label} is a model for {spec.mode}, and {wanted.mode.value} is wanted",
        f"take {' or '.join(others)}" if others else f"the manifest has no model for {wanted.mode.value}",
    )


def _lacks(
    spec: ModelSpec, variant: VariantSpec, status: ModelStatus | None, hardware: Hardware
) -> tuple[list[Issue], list[str]]:
    """What the disk lacks: space for what is to be fetched, and components of a folder that is there."""
    issues: list[Issue] = []
    unknown: list[str] = []
    if status is None:
        return issues, unknown
    if status.folder.is_dir() and not variant.sensitive:  # the components of those are encrypted
        fetch = f"`wan models ensure {status.name}` fetches what is missing"
        issues += [(str(problem), fetch) for problem in find_problems(status.folder, spec) if not problem.is_optional]
    needed, free = status.bytes_needed, hardware.disk_free
    if needed is None or (needed and free is None):
        unknown.append("whether what is still to be fetched fits on the disk")
    elif needed and free is not None and needed + SAFETY_MARGIN > free:
        issues.append(
            (
                f"{size_text(needed)} are still to be fetched, {size_text(SAFETY_MARGIN)} are to stay free, and "
                f"{size_text(free)} are free on the disk",
                "`wan models gc` shows what can go",
            )
        )
    return issues, unknown


def _memory_lacks(asked: Fallback, hardware: Hardware) -> Iterator[Issue]:
    needs = asked.estimate
    if asked.fits_gpu is False:
        yield (
            f"{needs.peak.phase.value} takes about {size_text(needs.total)} of the GPU's memory, and "
            f"{size_text(hardware.vram_free or 0)} are free",
            "",
        )
    if asked.fits_main_memory is False:
        yield (
            f"the model's parts take about {size_text(needs.main_memory)} of main memory, and "
            f"{size_text(hardware.main_memory_free or 0)} are free",
            "",
        )


def _unknown_memory(hardware: Hardware) -> list[str]:
    named = {"the GPU's free memory": hardware.vram_free, "the free main memory": hardware.main_memory_free}
    return [what for what, free in named.items() if free is None]


def _advice(tried: list[Fallback], misfits: list[Issue]) -> Iterator[str]:
    """What to do about memory. The hosts differ in what they can; nothing of it is done by itself."""
    last = tried[-1]
    if misfits or tried[0].fits is not False:
        return
    needs = f"{size_text(last.estimate.total)} of the GPU's memory"
    if last.fits is False:
        yield from _advice_without_a_way(tried)
    elif last.kind is FallbackKind.QUANTISED:
        yield f"load transformer and text encoder as {last.wanted.precision} in OneTrainer: {needs}"
    elif last.kind is FallbackKind.SMALLER_MODEL:
        yield f"take {last.model}: {needs}"
    else:
        yield f"set offload_fraction to {last.wanted.offload} in OneTrainer, of transformer and text encoder: {needs}"


def _advice_without_a_way(tried: list[Fallback]) -> Iterator[str]:
    asked = tried[0].wanted
    on_gpu = [way for way in tried if way.fits_gpu is not False]
    if on_gpu:
        way = min(on_gpu, key=lambda way: way.estimate.main_memory)
        yield f"have {size_text(way.estimate.main_memory)} of main memory free: then {way.label} would do"
        return
    if asked.training and not asked.gradient_checkpointing:
        yield "switch gradient checkpointing on"
    if tried[-1].estimate.peak.phase is Phase.VAE_ENCODING:
        yield "train at a smaller size, or switch vae_tiling on in OneTrainer: the VAE takes most"
    else:
        yield "take fewer frames, a smaller size or a smaller batch"
