"""`wan models schema`: what the `--json` of a command consists of."""

from __future__ import annotations

from typing import Annotated

import typer

from wan_fixes.cli.console import Debug, out, print_json, shown


def schema(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A command: status, or manifest-lock for one of a group.")
    ] = None,
    _debug: Debug = False,
) -> None:
    """Print the JSON Schema of what a command prints with --json; without a name, which schemas there are."""
    from wan_fixes.schemas import load_schema, schema_names

    if name is not None:
        print_json(load_schema(name))
        return
    for known in schema_names():
        out.print(shown(known))
