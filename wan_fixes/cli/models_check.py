"""`wan models check`: whether a model fits what is wanted of it and this machine, before it is fetched or loaded."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from wan_fixes.cli.console import AsJson, Debug, ExitCode, out, print_json, shown
from wan_fixes.cli.models_view import finite_only
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.models.compatibility import CompatibilityCheck
    from wan_fixes.models.fallbacks import Fallback
    from wan_fixes.models.hardware import Hardware
    from wan_fixes.models.vram import PhaseMemory

_BAR_WIDTH = 24  # characters of the longest bar
_STYLES = {"weights": "blue", "LoRA": "magenta", "activations": "yellow", "CUDA": "white"}
_LEVELS = {"FULLY_COMPATIBLE": "green", "PARTIALLY_COMPATIBLE": "yellow", "INCOMPATIBLE": "bold red"}


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ID, ID@VERSION or ID@VERSION#VARIANT.")],
    mode: Annotated[str | None, typer.Option("--mode", metavar="t2v|i2v|ti2v", help="What to make clips from.")] = None,
    vram: Annotated[
        float | None,
        typer.Option("--vram", metavar="GB", min=0, callback=finite_only, help="Free on the GPU (default: as it is)."),
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="Of a clip (default: the model's).")] = None,
    width: Annotated[int | None, typer.Option("--width", min=1, help="In pixels (default: the model's).")] = None,
    height: Annotated[int | None, typer.Option("--height", min=1, help="In pixels (default: the model's).")] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="fp32|bf16|fp16|fp8", help="Of the transformer's weights.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Clips that are trained on at once.")] = 1,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of the LoRA.")] = 16,
    offload: Annotated[
        float, typer.Option("--offload", min=0, max=1, help="Share of the layers that wait in main memory.")
    ] = 0.0,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Say what training a LoRA takes of the GPU, and whether the model and this machine do for what is wanted.

    Exits with 4 when it does not fit as it is asked for. Loads nothing and changes nothing.
    """
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.compatibility import check_compatibility
    from wan_fixes.models.fallbacks import GenerationMode, WantedSettings
    from wan_fixes.models.hardware import Hardware

    if mode is not None and mode not in list(GenerationMode):
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(known.value for known in GenerationMode)}")
    ensurer = ModelEnsurer()
    target = ensurer.target(model)
    wanted = WantedSettings.of(
        target.spec,
        mode=None if mode is None else GenerationMode(mode),
        frames=frames,
        width=width,
        height=height,
        precision=precision,
        batch=batch,
        lora_rank=rank,
        offload=offload,
    )
    hardware = Hardware.of_this_machine(ensurer.resolver.root)
    if vram is not None:
        hardware = replace(hardware, gpu="", vram_total=None, vram_free=round(vram * 1e9))
    found = check_compatibility(
        target.spec, target.variant, wanted, hardware, manifest=ensurer.manifest, status=ensurer.status(model)
    )
    if as_json:
        print_json({**found.as_json(), "wanted": asdict(wanted), "hardware": hardware.as_json()})
    else:
        _show(found, hardware)
    if not found.fits_as_asked:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _show(found: CompatibilityCheck, hardware: Hardware) -> None:
    table = small_table("phase", "total", "of the GPU's memory", right=(1,))
    widest = max(found.estimate.total, hardware.vram_free or 0)
    for phase in found.estimate.phases:
        table.add_row(shown(phase.phase.value), size_text(phase.total), _bar(phase, widest))
    out.print(table)
    out.print(Text("  ").join(Text("█ ", style) + shown(name) for name, style in _STYLES.items()))
    free = "how much is free is not known" if hardware.vram_free is None else f"{size_text(hardware.vram_free)} free"
    out.print(shown(f"GPU: {hardware.gpu + ', ' if hardware.gpu else ''}{free}"), soft_wrap=True)
    out.print()
    if len(found.tried) > 1:
        out.print(_tried(found.tried))
        out.print()
    out.print(shown(f"{found.model}: ") + shown(found.level.value, _LEVELS[found.level.value]))
    for heading, texts in (("issue", found.issues), ("unknown", found.unknown), ("do", found.recommendations)):
        for text in texts:
            out.print(shown(f"  {heading}: {text}"), soft_wrap=True)


def _tried(tried: tuple[Fallback, ...]) -> object:
    table = small_table("way", "which", "GPU", "main memory", "verdict", right=(2, 3))
    for way in tried:
        needs = way.estimate
        table.add_row(
            shown(way.kind.value),
            shown(way.label),
            size_text(needs.total),
            size_text(needs.main_memory),
            shown(_verdict(way), "green" if way.fits else ""),
        )
    return table


def _verdict(way: Fallback) -> str:
    if way.fits is None:
        return "not known"
    if way.fits:
        return "fits"
    return "GPU too small" if way.fits_gpu is False else "main memory too small"


def _bar(phase: PhaseMemory, widest: int) -> Text:
    """Its parts side by side. Each ends where the sum of the parts up to it does, so that rounding moves no end."""
    from wan_fixes.models.vram import RUNTIME_BYTES

    parts = {"weights": phase.weights, "LoRA": phase.lora, "activations": phase.activations, "CUDA": RUNTIME_BYTES}
    bar, total, drawn = Text(), 0, 0
    for name, size in parts.items():
        total += size
        end = round(total / widest * _BAR_WIDTH)
        bar.append("█" * (end - drawn), style=_STYLES[name])
        drawn = end
    return bar
