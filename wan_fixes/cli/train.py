"""`wan train`: train a LoRA from a preset, and say what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wan_fixes.cli.check import show_notes
from wan_fixes.cli.console import Debug, name_within, out, say_above_bars, shown, why_and_fix
from wan_fixes.cli.tables import duration_text, facts_table, small_table
from wan_fixes.errors import UserError
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.hosts.standalone.result import SampleRemark, TrainResult
    from wan_fixes.preflight import ConfigFinding


_STANDALONE = "standalone"


def train(
    config: Annotated[
        Path, typer.Option("--config", metavar="PRESET", help="A OneTrainer preset or saved configuration.")
    ],
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="PATH", help="What trains: the folder of a OneTrainer, or this package's own trainer."
        ),
    ] = _STANDALONE,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", min=1, help="Stop after so many steps, counted from the very start.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew instead of going on; the cache stays.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the LoRA here, not where the preset says.")
    ] = None,
    _debug: Debug = False,
) -> None:
    """Train a LoRA from a preset. Bad clips are left out and named; an interrupted run goes on where it was."""
    if host != _STANDALONE:
        if max_steps is not None or fresh or output is not None:
            raise typer.BadParameter("--max-steps, --fresh and --output are for --host standalone; use the preset")
        from wan_fixes.hosts.onetrainer.checkout import require_checkout
        from wan_fixes.hosts.onetrainer.running import train_in_checkout

        try:
            checkout = require_checkout(Path(host))
        except UserError as error:
            error.fix += f", or train with --host {_STANDALONE}"
            raise
        train_in_checkout(checkout, config)
        return

    from wan_fixes.hosts.standalone import read_preset

    destination = None if output is None else _checked_output(output)
    warnings = _checked_configuration(config, destination)
    preset = read_preset(config)
    if destination is not None:
        preset = replace(preset, output_model_destination=destination)
    show_notes(preset)

    from wan_fixes.hosts.standalone.trainer import train as train_standalone

    result = train_standalone(
        preset, max_steps=max_steps, resume="never" if fresh else "auto", on_event=announce, warnings=warnings
    )
    show_result(result, [concept.path for concept in preset.concepts])


def _checked_configuration(config: Path, destination: Path | None) -> list[ConfigFinding]:
    """The warnings of the checks; with an error in it, all of them are raised as one."""
    from wan_fixes.hosts.standalone.preset_check import check_preset_file
    from wan_fixes.preflight import refusal, warnings_in
    from wan_fixes.settings import Settings

    settings = Settings.load()
    if not settings.check_configuration:
        return []
    changes = {} if destination is None else {"output_model_destination": str(destination)}
    _, found = check_preset_file(config, settings, **changes)
    error = refusal(found, config.absolute())
    if error is not None:
        raise error
    return warnings_in(found)


def _checked_output(output: Path) -> Path:
    if output.suffix != ".safetensors" or output.is_dir():
        raise UserError(
            "the LoRA cannot be written there",
            path=output,
            reason="a file that ends in .safetensors is needed",
            fix="name one, like lora.safetensors",
        )
    return output.absolute()


def announce(name: str, payload: dict[str, Any]) -> None:
    """Show the messages of a run, above its progress bars."""
    if name == "message":
        say_above_bars(payload["text"])


def show_result(result: TrainResult, folders: list[str]) -> None:
    """Print what was trained, what was left out and why, cache hits, times, and the files written.

    Clips are named within `folders`, the concepts'.
    """
    show_left_out(result.left_out, folders)
    facts = facts_table()
    facts.add_row("clips", f"{result.valid} trained on, {result.skipped} left out, {result.failed} failed")
    facts.add_row("steps", _steps(result))
    if result.losses:
        facts.add_row("loss", f"{result.losses[0]:.4f} at first, {result.losses[-1]:.4f} at last")
    facts.add_row("cache", f"{result.cache_hits} hits, {result.cache_misses} made anew")
    facts.add_row("times", ", ".join(f"{phase} {duration_text(spent)}" for phase, spent in result.seconds.items()))
    out.print(facts)
    out.print("files written", style="bold")
    for file in result.files:
        # Not in the table, which would break a long path into lines.
        out.print(shown(f"  {_near(file)} ({size_text(_size(file))})"), soft_wrap=True)
    if not result.finished:
        out.print("not finished: the same command goes on from here")


def show_left_out(left_out: Sequence[SampleRemark], folders: list[str]) -> None:
    """Print which clips were left out, named within `folders`, and why."""
    out.print()
    if left_out:
        table = small_table("left out", "why, and what helps")
        for remark in left_out:
            table.add_row(name_within(remark.path, folders), why_and_fix(remark.reason, remark.fix))
        out.print(table)
        out.print()


def _steps(result: TrainResult) -> str:
    text = f"{result.steps - result.first_step}, now at {result.steps}"
    if result.resumed_from is not None:
        text += f", going on from {result.first_step}"
    if result.skipped_steps:
        text += f"; {result.skipped_steps} left out, their loss or gradient was not finite"
    return text


def _near(path: Path) -> Path:
    """The path seen from the working folder, where it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
