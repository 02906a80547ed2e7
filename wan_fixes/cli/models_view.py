"""What the commands on models share: the names, the table of states, the bar of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.console import ExitCode, out, print_json, report, shown
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.models import ModelEnsurer, ModelStatus, Progress

Model = Annotated[str, typer.Argument(metavar="MODEL", help="ID, ID@VERSION or ID@VERSION#VARIANT.")]
Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="As `wan models list` shows them.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without this it is only shown.")]

_STYLES = {"COMPLETE": "green", "PARTIAL": "yellow", "CORRUPT": "bold red", "VERIFYING": "cyan"}
_FILES_SHOWN = 5


def all_names(ensurer: ModelEnsurer) -> list[str]:
    """Each model and variant of the manifest, as short as it can be said."""
    return [spec.short_name(variant.name) for spec, variant in ensurer.manifest.variants()]


def names_there(ensurer: ModelEnsurer) -> list[str]:
    """Those of which something is in its place."""
    return [name for name in all_names(ensurer) if ensurer.target(name).folder.is_dir()]


@contextmanager
def bytes_bar(text: str) -> Iterator[Callable[[Progress], None]]:
    """A bar that follows the progress of a work on models."""
    with progress_bar(text, in_bytes=True) as update:

        def came(progress: Progress) -> None:
            update(progress.done, progress.total)

        yield came


def show_statuses(ensurer: ModelEnsurer, found: Sequence[ModelStatus], *, as_json: bool) -> None:
    """The states of models as a table, with the files that are not as they should be; or as JSON."""
    if as_json:
        print_json({"root": str(ensurer.resolver.root), "models": [status.as_json() for status in found]})
        return
    table = small_table("model", "state", "on disk", "to fetch", "verified", right=(2, 3))
    for status in found:
        state = shown(status.state.value, _STYLES.get(status.state.value, ""))
        there = size_text(status.bytes_there) if status.bytes_there else ""
        spec, variant = ensurer.manifest.find(status.name)
        name = shown(spec.short_name(variant.name))
        table.add_row(name, state, there, known_size(status.bytes_needed), day(status.verified_at))
    out.print(table)
    for status in found:
        for what, files in (("missing", status.missing), ("wrong", status.corrupt), ("changed", status.unverified)):
            if files and status.folder.is_dir():
                out.print(shown(f"{status.name}: {what}: {some_of(files)}"), soft_wrap=True)
    out.print(shown(f"in {ensurer.resolver.root}"), soft_wrap=True)


def exit_unless_complete(found: Sequence[ModelStatus]) -> None:
    """Leave with `ExitCode.INCOMPLETE` when one of them is not complete."""
    from wan_fixes.models import ModelState

    if any(status.state is not ModelState.COMPLETE for status in found):
        raise typer.Exit(ExitCode.INCOMPLETE)


def work_on_each(
    ensurer: ModelEnsurer, names: Sequence[str], work: Callable[[str], ModelStatus], *, as_json: bool
) -> None:
    """Do some work on these models and show their states; one that fails does not keep the others waiting.

    Leaves with the worst of the failures' codes; else with `ExitCode.INCOMPLETE` when one is not complete.
    """
    from wan_fixes.models import ModelError

    found, failed = [], []
    for name in names:
        try:
            found.append(work(name))
        except (ModelError, OSError) as error:
            failed.append(report(error))
    if as_json or found or not failed:
        show_statuses(ensurer, found, as_json=as_json)
    if failed:
        raise typer.Exit(worst(failed))
    exit_unless_complete(found)


def worst(failed: Sequence[ExitCode]) -> ExitCode:
    """Of the codes with which models failed, the one to leave with: a failure counts more than a mistake."""
    return max(failed, key=lambda code: code is ExitCode.FAILED)


def finite_only(value: float | None) -> float | None:
    """The callback of an option that is a number: one that is not finite is refused."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not finite")
    return value


def some_of(files: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(files) - _FILES_SHOWN} more" if len(files) > _FILES_SHOWN else ""
    return ", ".join(files[:_FILES_SHOWN]) + more


def known_size(count: int | None) -> str:
    """Bytes for people; "?" where nobody knows how many."""
    return "?" if count is None else size_text(count)


def day(seconds: float | None) -> str:
    """A moment (seconds since 1970) as date and time in UTC; "never" for None."""
    return "never" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


class Once:
    """Says each text one time."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)
