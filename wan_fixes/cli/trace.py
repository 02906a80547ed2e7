"""`wan trace`: one sample through the modules again, with shapes and times."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from wan_fixes.cli.console import AsJson, Debug, ExitCode, err, out, print_json, shown
from wan_fixes.cli.tables import facts_table, small_table

if TYPE_CHECKING:
    from wan_fixes.hosts.standalone.trace import SampleTrace
    from wan_fixes.media import FramePlan, VideoMetadata
    from wan_fixes.pipeline.tracing import TraceRecord

_FRAMES_SHOWN = 12  # of a plan, from its beginning


def trace(
    preset_path: Annotated[Path, typer.Argument(metavar="PRESET", help="A OneTrainer preset or saved configuration.")],
    sample_name: Annotated[
        str, typer.Argument(metavar="SAMPLE", help="A file of the preset's concepts, or a part of its name.")
    ],
    variation: Annotated[
        int, typer.Option("--variation", metavar="N", min=0, help="Which of its variations, from 0.")
    ] = 0,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Only as far as the picture and the prompt, without the model.")
    ] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Run one sample through the modules again: what each read and gave, how long it took, and where it fails.

    Nothing in the cache is read or changed. Exits with 1 when the sample cannot be used.
    """
    from wan_fixes.hosts.standalone import read_preset
    from wan_fixes.hosts.standalone.trace import find_sample, trace_sample

    preset = read_preset(preset_path, needs_model=False)
    sample = find_sample(preset, sample_name)
    with_model = not no_model
    if with_model and not preset.base_model_name.exists():
        with_model = False
        err.print(
            shown(f"the model is not there ({preset.base_model_name}): only as far as the picture and the prompt"),
            soft_wrap=True,
        )
    traced = trace_sample(preset, sample, variation=variation, with_model=with_model)
    if as_json:
        print_json(as_dict(traced))
    else:
        _show(traced)
    if traced.error is None:
        return
    if as_json:
        raise typer.Exit(ExitCode.FAILED)
    raise traced.error


def as_dict(traced: SampleTrace) -> dict[str, Any]:
    """The trace as JSON types."""
    error = traced.error
    return {
        "path": traced.path,
        "variation": traced.variation,
        "with_model": traced.with_model,
        "calls": [asdict(record) for record in traced.records],
        "clip": None if traced.metadata is None else _clip_facts(traced.metadata),
        "frames": None
        if traced.plan is None
        else [
            {"index": index, "seconds": seconds}
            for index, seconds in zip(traced.plan.indices, traced.plan.times, strict=True)
        ],
        "error": None
        if error is None
        else {
            "module": traced.failing_module,
            "found_by": error.module,
            "what": error.what,
            "reason": error.reason,
            "fix": error.fix,
        },
    }


def _show(traced: SampleTrace) -> None:
    out.print(Text("sample  ", style="bold") + shown(traced.path), soft_wrap=True)
    out.print()
    table = small_table("module", "read", "gave", "ms", right=(3,))
    for record in traced.records:
        table.add_row(shown(record.module), _items(record.inputs), _gave(record), f"{1000 * record.seconds:.1f}")
    out.print(table)
    if traced.failing_module:
        out.print()
        out.print(shown(f"it fails in {traced.failing_module}", "red"))
    if traced.metadata is not None:
        out.print()
        out.print(_reading(traced.metadata, traced.plan))
    if not traced.with_model and traced.error is None:
        out.print()
        out.print("the VAE and the text encoder were left out")


def _items(items: dict[str, str]) -> Text:
    return Text("\n").join([Text(": ").join([shown(name, "bold"), shown(what)]) for name, what in items.items()])


def _gave(record: TraceRecord) -> Text:
    parts = [*([_items(record.outputs)] if record.outputs else [])]
    parts += [shown(f"tried again after {problem}", "yellow") for problem in record.retried if not record.error]
    return Text("\n").join([*parts, *([shown(record.error, "red")] if record.error else [])])


def _reading(clip: VideoMetadata, plan: FramePlan | None) -> Any:
    facts = facts_table()
    variable = " on average" if clip.is_variable_rate else ""
    turned = f", turned by {clip.rotation}°" if clip.rotation else ""
    facts.add_row("clip", shown(f"{clip.width}x{clip.height}{turned}, {clip.fps:.5g} fps{variable}"))
    facts.add_row("length", f"{clip.duration:.2f} s, {clip.frame_count} frames")
    facts.add_row("codec", shown(f"{clip.codec} ({clip.pixel_format}) in {clip.format}, read by {clip.decoder}"))
    for warning in clip.warnings:
        facts.add_row("warning", shown(warning))
    if plan is not None:
        named = [f"{index} at {seconds:.3f} s" for index, seconds in zip(plan.indices, plan.times, strict=True)]
        more = f", … {named[-1]}" if len(named) > _FRAMES_SHOWN else ""
        facts.add_row("frames", f"{len(named)}: {', '.join(named[:_FRAMES_SHOWN])}{more}")
    return facts


def _clip_facts(clip: VideoMetadata) -> dict[str, Any]:
    """What was measured, without the times of all its frames."""
    return {name: value for name, value in asdict(clip).items() if name not in ("frame_times", "timestamps", "path")}
