"""`wan enable` and `wan disable`: the plugin inside a OneTrainer checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wan_fixes.cli.console import Debug, err, out, shown

Checkout = Annotated[Path, typer.Argument(metavar="PATH", help="The folder of OneTrainer.")]
Interpreter = Annotated[
    Path | None, typer.Option("--python", metavar="FILE", help="The Python that OneTrainer runs with, where not found.")
]


def enable(
    path: Checkout,
    python: Interpreter = None,
    package: Annotated[
        str | None, typer.Option("--package", metavar="WHEEL", help="What to install, instead of this version.")
    ] = None,
    _debug: Debug = False,
) -> None:
    """Have OneTrainer load the plugin at its next start. Not one of its files is changed."""
    from wan_fixes.hosts.onetrainer.enabling import enable as enable_checkout

    done = enable_checkout(path, python=python, package=package)
    if done.was_enabled:
        out.print(shown(f"already enabled: {done.checkout}"), soft_wrap=True)
    else:
        out.print(shown(f"enabled: {done.checkout}"), soft_wrap=True)
        packages = ", ".join(f"{name} {version}" for name, version in sorted(done.installed.items()))
        out.print(shown(f"its Python has got: {packages}" if packages else "its Python had all that it takes"))
        out.print("start OneTrainer as usual; `wan disable` takes it all back")
    for name, symbols in done.missing.items():
        err.print(shown(f"this OneTrainer lacks {', '.join(symbols)}: {name} is off", "yellow"), soft_wrap=True)


def disable(path: Checkout, _debug: Debug = False) -> None:
    """Take the plugin out of OneTrainer again, with every package that came with it."""
    from wan_fixes.hosts.onetrainer.enabling import disable as disable_checkout

    entry = disable_checkout(path)
    out.print(shown(f"disabled: {entry.path}"), soft_wrap=True)
