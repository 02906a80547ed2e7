"""`wan models smoke`: whether a model works on this machine's GPU, in a step or two."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wan_fixes.cli.console import AsJson, Debug, out, print_json, say_above_bars, shown
from wan_fixes.cli.tables import duration_text, facts_table
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.wan.variants import WanVariant


def smoke(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|FOLDER", help="ID, ID@VERSION, ID@VERSION#VARIANT, or a model's folder.")
    ],
    steps: Annotated[int, typer.Option("--steps", min=1, max=50, help="Of denoising; two use both experts.")] = 2,
    device: Annotated[
        str | None, typer.Option("--device", metavar="cuda|cpu", help="Where (default: the GPU, if there is one).")
    ] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Load a model and begin a tiny clip with it, to see that it works here. Fetches nothing.

    Exits with 1 when it does not.
    """
    from wan_fixes.hosts.standalone.smoke import smoke_test

    folder, variant = _find(model)
    say_above_bars(f"loading {variant.label} from {folder}")
    result = smoke_test(folder, variant, steps=steps, device=device)
    if as_json:
        print_json(asdict(result))
        return
    table = facts_table()
    table.add_row("model", shown(f"{variant.label}: works"))
    table.add_row("device", shown(result.device))
    for phase, seconds in result.seconds.items():
        table.add_row(phase, duration_text(seconds))
    if result.peak_gpu_bytes is not None:
        table.add_row("most of the GPU's memory", size_text(result.peak_gpu_bytes))
    out.print(table)


def _find(model: str) -> tuple[Path, WanVariant]:
    """The folder, and what is in it. Raises what says that it is not there."""
    from wan_fixes.hosts.standalone.smoke import variant_of
    from wan_fixes.models.components import require_components
    from wan_fixes.models.locate import check_complete, named_model
    from wan_fixes.wan.variants import get_variant

    named = named_model(model, model_type="")
    if named is None:
        folder = Path(model).expanduser()
        return folder, variant_of(folder)
    check_complete(model, model_type="")
    ensurer = named.ensurer()
    ensurer.usage.use(ensurer.target(named.name).name)
    folder = ensurer.ensure(named.name)  # it opens one that is encrypted, and asks no server
    require_components(folder, named.spec)
    return folder, get_variant(named.spec.model_type)
