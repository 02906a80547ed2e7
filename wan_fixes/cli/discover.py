"""`wan discover`: the training data below a folder, and a concepts file for it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wan_fixes.cli.console import AsJson, Debug, ExitCode, err, out, print_json, shown
from wan_fixes.cli.tables import small_table


def discover(
    folder: Annotated[Path, typer.Argument(help="The folder to search, with those below it.")],
    output: Annotated[Path | None, typer.Option(help="Write a concepts file, for OneTrainer and for presets.")] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """List the folders that hold clips or images, and write a concepts file that names them.

    Exits with 3 when there are none.
    """
    from wan_fixes.hosts.standalone import discover as discovery

    found, problems = discovery.discover(folder)
    if output is not None and found:
        discovery.write_concepts(found, output)
    if as_json:
        print_json({"folders": [asdict(data) for data in found], "problems": problems})
    elif found:
        table = small_table("folder", "clips", "images", "without caption", right=(1, 2, 3))
        for data in found:
            table.add_row(shown(data.name), str(data.clips), str(data.images), str(data.without_caption))
        out.print(table)
    for path, reason in problems:
        err.print(shown(f"left out: {path}: {reason}"), soft_wrap=True)
    if not found:
        err.print(shown(f"no clips and no images in {folder}"), soft_wrap=True)
        raise typer.Exit(ExitCode.NOTHING_USABLE)
    if output is not None:
        err.print(shown(f"written: {output}; name it in the preset's concept_file_name"), soft_wrap=True)
