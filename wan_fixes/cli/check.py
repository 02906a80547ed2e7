"""`wan check`: a verdict on every clip of a preset, before any GPU work."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.configuration import show_findings, write_corrected
from wan_fixes.cli.console import AsJson, Debug, ExitCode, err, out, print_json, report, shown, why_and_fix
from wan_fixes.cli.tables import small_table
from wan_fixes.errors import WanFixesError

if TYPE_CHECKING:
    from wan_fixes.hosts.standalone import Preset
    from wan_fixes.hosts.standalone.check import FileVerdict
    from wan_fixes.hosts.standalone.clip_spread import ClipSpread
    from wan_fixes.preflight import ConfigFinding
    from wan_fixes.settings import Settings

_BAR_WIDTH = 30  # characters of the longest bar
_STYLES = {"good": "green", "warning": "yellow", "rejected": "red"}
_ORDER = tuple(_STYLES)  # what was rejected comes last, next to the summary


def check(
    preset_path: Annotated[Path, typer.Argument(metavar="PRESET", help="A OneTrainer preset or saved configuration.")],
    as_json: AsJson = False,
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write it as a web page too.")] = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="FILE", help="Write a corrected copy of the preset there.")
    ] = None,
    _debug: Debug = False,
) -> None:
    """Give a verdict on every clip, with the reason and what helps, and look over the preset and the model folder.

    Exits with 3 when nothing can be trained on, with 2 when preset or model have an error, with 1 before it is fetched.
    """
    from wan_fixes.hosts.standalone import read_preset
    from wan_fixes.hosts.standalone.clip_spread import clip_spread
    from wan_fixes.hosts.standalone.preset_check import check_preset_file
    from wan_fixes.hosts.standalone.reading import HostLimitError
    from wan_fixes.preflight import errors_in
    from wan_fixes.settings import Settings

    settings = Settings.load()
    content, found = check_preset_file(preset_path, settings)
    if not as_json:
        show_findings(found)
    if fix is not None:
        write_corrected(content, found, preset_path, fix)
    try:
        preset = read_preset(preset_path)
    except WanFixesError as error:
        if isinstance(error, HostLimitError) and not errors_in(found):
            err.print("OneTrainer trains this preset: what follows is a limit of `wan train` without --host alone")
        if as_json:  # what was found is told all the same
            print_json({"preset": str(preset_path.absolute()), "configuration": [asdict(finding) for finding in found]})
        raise
    verdicts = _inspect(preset, settings)
    counts: Counter[str] = Counter(verdict.status for verdict in verdicts)
    spread = clip_spread(preset, verdicts)
    if page is not None:
        _write_page(preset, verdicts, spread, found, page)
    if as_json:
        print_json(
            {
                "preset": str(preset.path),
                "model_type": preset.model_type,
                "frames": preset.frames,
                "fps": preset.variant.fps,
                "files": [asdict(verdict) for verdict in verdicts],
                "totals": {status: counts[status] for status in _ORDER},
                "spread": asdict(spread),
                "fields": [asdict(note) for note in preset.report],
                "configuration": [asdict(finding) for finding in found],
            }
        )
    else:
        show_notes(preset)
        _show(preset, verdicts, counts)
        _show_spread(preset, spread)
    code = _look_at_model(preset)
    if errors_in(found):
        code = ExitCode.USAGE
    if not counts["good"] + counts["warning"]:
        err.print("nothing can be trained on")
        code = ExitCode.NOTHING_USABLE
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _look_at_model(preset: Preset) -> ExitCode:
    """Say what is wrong with the model's files, and give the exit code for it."""
    from wan_fixes.hosts.standalone.model_files import check_model_folder
    from wan_fixes.models.locate import check_complete

    try:
        if preset.model_name:
            check_complete(preset.model_name, preset.model_type)
        check_model_folder(preset.base_model_name, preset.variant)
    except WanFixesError as error:
        return report(error)
    return ExitCode.OK


def show_notes(preset: Preset) -> None:
    """Name the fields of the preset that are not used as they stand."""
    if preset.report:
        table = small_table("preset field", "value", "what becomes of it")
        for note in preset.report:
            table.add_row(shown(note.field), shown(note.value), shown(f"{note.status}: {note.reason}"))
        out.print(table)
        out.print()


def _inspect(preset: Preset, settings: Settings) -> list[FileVerdict]:
    """Look at every file, under a bar."""
    from wan_fixes.hosts.standalone.check import check_files

    with progress_bar("checking clips") as update:
        return check_files(preset, settings, update)


def _write_page(
    preset: Preset, verdicts: list[FileVerdict], spread: ClipSpread, found: list[ConfigFinding], page: Path
) -> None:
    from wan_fixes.health.html_page import write_page
    from wan_fixes.hosts.standalone.check_page import check_page
    from wan_fixes.pipeline.media_reader import reader_for
    from wan_fixes.settings import Settings

    write_page(check_page(preset, verdicts, spread, reader_for(Settings.load()).poster, found), page)
    err.print(shown(f"written: {page}"), soft_wrap=True)


def _show(preset: Preset, verdicts: list[FileVerdict], counts: Counter[str]) -> None:
    table = small_table("clip", "verdict", "why, and what helps")
    several = len(preset.concepts) > 1
    for verdict in sorted(verdicts, key=lambda verdict: _ORDER.index(verdict.status)):
        name = f"{verdict.concept}: {verdict.name}" if several else verdict.name
        style = _STYLES[verdict.status]
        table.add_row(
            shown(name), shown(verdict.status, style), why_and_fix(verdict.reason or verdict.facts, verdict.fix)
        )
    if verdicts:
        out.print(table)
        out.print()
    for concept in preset.concepts:
        statuses = [verdict.status for verdict in verdicts if verdict.concept == concept.name]
        if all(status == "rejected" for status in statuses):
            trouble = "has no clip that can be used" if statuses else "has no clips"
            out.print(shown(f"concept {concept.name} {trouble}: {concept.path}", "yellow"), soft_wrap=True)
    fps = preset.variant.fps
    out.print(f"{len(verdicts)} files for samples of {preset.frames} frames at {fps} fps: ", end="")
    out.print(", ".join(f"{counts[status]} {status}" for status in _ORDER))


def _show_spread(preset: Preset, spread: ClipSpread) -> None:
    """Histograms, so that a preset can be fitted to the clips that there are."""
    for heading, bars in (
        (f"frames at {preset.variant.fps} fps", spread.lengths),
        ("frames per second", spread.rates),
        ("trained at", spread.buckets),
    ):
        if not bars:
            continue
        most = max(count for _, count in bars)
        table = small_table(heading, "files", "", right=(1,))
        for label, count in bars:
            table.add_row(shown(label), str(count), shown("█" * max(1, round(_BAR_WIDTH * count / most)), "blue"))
        out.print()
        out.print(table)
