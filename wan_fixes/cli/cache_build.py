"""`wan cache build`: fill the cache of a preset, without training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wan_fixes.cli.check import show_notes
from wan_fixes.cli.console import AsJson, Debug, out, print_json, shown
from wan_fixes.cli.tables import duration_text, facts_table
from wan_fixes.cli.train import announce, show_left_out


def build(
    config: Annotated[Path, typer.Argument(metavar="PRESET", help="A OneTrainer preset or saved configuration.")],
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Cache all that training from the preset needs, with every variation. Loads the encoders only, and trains nothing.

    Bad clips are left out and named; an interrupted one goes on where it was.
    """
    from wan_fixes.hosts.standalone import read_preset

    preset = read_preset(config)
    if not as_json:
        show_notes(preset)

    from wan_fixes.hosts.standalone.cache_build import build_cache

    result = build_cache(preset, on_event=announce)
    if as_json:
        print_json({"preset": str(preset.path), "cache": str(preset.cache_dir), **asdict(result)})
        return
    show_left_out(result.left_out, [concept.path for concept in preset.concepts])
    facts = facts_table()
    facts.add_row("clips", f"{result.valid} cached, {result.skipped} left out, {result.failed} failed")
    facts.add_row("cache", f"{result.cache_hits} hits, {result.cache_misses} made anew")
    facts.add_row("time", duration_text(result.seconds))
    out.print(facts)
    out.print(shown(f"cache folder: {preset.cache_dir}"), soft_wrap=True)
