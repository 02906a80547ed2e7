"""`wan enable`, `wan disable` and `wan doctor`: the plugin inside a OneTrainer checkout."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wan_fixes.cli.console import AsJson, Debug, ExitCode, err, out, print_json, shown, why_and_fix
from wan_fixes.cli.tables import small_table

if TYPE_CHECKING:
    from wan_fixes.hosts.onetrainer.doctor import Finding

Checkout = Annotated[Path, typer.Argument(metavar="PATH", help="The folder of OneTrainer.")]
Interpreter = Annotated[
    Path | None, typer.Option("--python", metavar="FILE", help="The Python that OneTrainer runs with, where not found.")
]

_STYLES = {"good": "green", "warning": "yellow", "problem": "red"}


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


def doctor(path: Checkout, python: Interpreter = None, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Look at OneTrainer, its environment, every place where the plugin reaches into it, and the machine.

    Exits with 1 when something keeps the plugin from working.
    """
    from wan_fixes.hosts.onetrainer.doctor import diagnose

    findings = diagnose(path, python=python)
    counts: Counter[str] = Counter(finding.status for finding in findings)
    if as_json:
        totals = {status: counts[status] for status in _STYLES}
        print_json({"checkout": str(path), "findings": [asdict(finding) for finding in findings], "totals": totals})
    else:
        table = small_table("", "", "found, and what to do")
        for finding in _with_touch_points_as_one(findings):
            name = shown(f"{finding.topic}: {finding.name}")
            table.add_row(name, shown(finding.status, _STYLES[finding.status]), why_and_fix(finding.found, finding.fix))
        out.print(table)
        out.print(
            f"{counts['good']} good, {_some(counts['warning'], 'warning')}, {_some(counts['problem'], 'problem')}"
        )
    if counts["problem"]:
        raise typer.Exit(ExitCode.FAILED)


def _with_touch_points_as_one(findings: list[Finding]) -> list[Finding]:
    """For people: all the places that were found in OneTrainer's sources as one; those that were not, each."""
    found = [finding for finding in findings if finding.topic == "touch points" and finding.status == "good"]
    if not found:
        return findings
    place = findings.index(found[0])
    what = f"{len(found)} places where the plugin reaches into OneTrainer are as it expects them"
    rest = [finding for finding in findings if finding not in found]
    return [*rest[:place], replace(found[0], name="found", found=what), *rest[place:]]


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
