"""`wan models check-updates`, `update`, `rollback` and `history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wan_fixes.cli.console import AsJson, Debug, out, print_json, report, shown
from wan_fixes.cli.models_view import Model, Models, bytes_bar, day, names_there, some_of
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.models.history import Change
    from wan_fixes.models.versions import MigrationStrategy, UpdateInfo

_REVISION_SHOWN = 12


def check_updates(models: Models = None, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Ask whether there are later revisions of these models, or of all that are there. Nothing is fetched."""
    from wan_fixes.models import ModelEnsurer, ModelError
    from wan_fixes.models.versions import ModelVersions

    ensurer = ModelEnsurer()
    versions = ModelVersions(ensurer)
    found, failed = [], []
    for name in models or names_there(ensurer):
        try:
            found.append(versions.check(name))
        except ModelError as error:
            failed.append(report(error))
    if as_json:
        print_json({"models": [_info_as_json(info) for info in found]})
    else:
        table = small_table("model", "revision", "latest", "to fetch", right=(3,))
        for info in found:
            latest = info.latest_revision[:_REVISION_SHOWN] if info.is_available else "up to date"
            needed = size_text(info.bytes_needed) if info.is_available else ""
            table.add_row(shown(info.name), shown(info.revision[:_REVISION_SHOWN]), shown(latest), needed)
        if found:
            out.print(table)
        for info in found:
            _show_details(info)
        if not found and not failed:
            out.print("no model is there")
    if failed:
        raise typer.Exit(failed[0])


def _show_details(info: UpdateInfo) -> None:
    if info.is_available:
        out.print(shown(f"{info.name}: changed: {some_of(info.changed)}"), soft_wrap=True)
        for line in info.log:
            out.print(shown(f"  {line}"), soft_wrap=True)
    if info.later_versions:
        model_id = info.name.partition("@")[0]
        later = ", ".join(f"{model_id}@{version}" for version in info.later_versions)
        out.print(shown(f"{info.name}: the manifest has {later} too: `wan models ensure` fetches it"), soft_wrap=True)


def _info_as_json(info: UpdateInfo) -> dict[str, Any]:
    return {**vars(info), "is_available": info.is_available}


def update(
    model: Model,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            metavar="conservative|aggressive|parallel",
            help="Keep the old revision to go back to; remove it; or let the new one wait for trainings to end.",
        ),
    ] = "conservative",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Move a model to the latest revision of its source. It is the old one, whole, until it is the new one, whole."""
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.versions import ModelVersions

    chosen = _strategy(strategy)
    with bytes_bar(f"updating {model}") as came:
        change = ModelVersions(ModelEnsurer()).update(model, strategy=chosen, on_progress=came)
    if as_json:
        print_json({"change": None if change is None else _change_as_json(change)})
    elif change is None:
        out.print("up to date")
    else:
        _show_change(change)


def _strategy(text: str) -> MigrationStrategy:
    from wan_fixes.models.versions import MigrationStrategy

    try:
        return MigrationStrategy(text.lower())
    except ValueError:
        known = ", ".join(strategy.value for strategy in MigrationStrategy)
        raise typer.BadParameter(f"--strategy {text!r} is none of {known}") from None


def rollback(
    model: Model,
    revision: Annotated[
        str | None, typer.Argument(metavar="[REVISION]", help="As `wan models history` shows it (default: the last).")
    ] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Give a model an earlier revision back. What was not kept of it is fetched."""
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.versions import ModelVersions

    with bytes_bar(f"rolling {model} back") as came:
        change = ModelVersions(ModelEnsurer()).rollback(model, revision=revision, on_progress=came)
    if as_json:
        print_json({"change": _change_as_json(change)})
    else:
        _show_change(change)


def history(model: Model, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Show the changes of a model's revision."""
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.versions import ModelVersions

    changes = ModelVersions(ModelEnsurer()).history(model)
    if as_json:
        print_json({"changes": [_change_as_json(change) for change in changes]})
    elif not changes:
        out.print("it has the revision that it was fetched in")
    for change in () if as_json else changes:
        _show_change(change)


def _show_change(change: Change) -> None:
    before, after = (revision[:_REVISION_SHOWN] for revision in (change.before.revision, change.revision))
    line = f"{day(change.seconds)}  {change.action}  {before} -> {after}  {some_of(change.changed)}"
    out.print(shown(line), soft_wrap=True)
    for entry in change.log:
        out.print(shown(f"  {entry}"), soft_wrap=True)


def _change_as_json(change: Change) -> dict[str, Any]:
    return {**change.as_json(), "before": change.before.revision}
