"""`wan models`: which models there are, whether their files are there, and fetching and checking them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.console import AsJson, Debug, ExitCode, out, print_json, say_above_bars, shown
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text

if TYPE_CHECKING:
    from wan_fixes.models import ModelEnsurer, ModelStatus

app = typer.Typer(help="Have model files present, complete and genuine.", no_args_is_help=True, rich_markup_mode=None)
manifest_app = typer.Typer(help="Look after a manifest of models.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(manifest_app, name="manifest")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="ID, ID@VERSION or ID@VERSION#VARIANT.")]
Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="As `wan models list` shows them.")]

_STYLES = {"COMPLETE": "green", "PARTIAL": "yellow", "CORRUPT": "bold red", "VERIFYING": "cyan"}
_FILES_SHOWN = 5


@app.command("list")
def list_(as_json: AsJson = False, _debug: Debug = False) -> None:
    """Show the models of the manifest."""
    from wan_fixes.models import load_manifest

    manifest = load_manifest()
    models: list[dict[str, Any]] = [
        {
            "name": str(spec.name(variant.name)),
            "short_name": spec.short_name(variant.name),
            "label": spec.label,
            "model_type": spec.model_type,
            "mode": spec.mode,
            "precision": variant.precision,
            "repository": variant.hub.repository,
            "bytes": sum(file.size or 0 for file in variant.files) if _has_sizes(variant.files) else None,
        }
        for spec in manifest.models.values()
        for variant in spec.variants.values()
    ]
    if as_json:
        print_json({"manifest": str(manifest.path), "models": models})
        return
    table = small_table("model", "what it is", "size", "from", right=(2,))
    for model in models:
        table.add_row(
            shown(model["short_name"]), shown(model["label"]), _size(model["bytes"]), shown(model["repository"])
        )
    out.print(table)


@app.command("status")
def status(models: Models = None, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Show what is there of each model; asks no server. Exits with 4 when one that was named is not complete."""
    from wan_fixes.models import ModelEnsurer

    ensurer = ModelEnsurer()
    found = [ensurer.status(name) for name in models or _all_names(ensurer)]
    _show(ensurer, found, as_json=as_json)
    if models:
        _exit_unless_complete(found)


@app.command("ensure")
def ensure(
    model: Model,
    lock_timeout: Annotated[
        float | None,
        typer.Option(
            "--lock-timeout",
            metavar="SECONDS",
            min=0,
            help="Wait so long for another process (default: as long as it takes).",
        ),
    ] = None,
    connections: Annotated[
        int, typer.Option("--connections", min=1, max=64, help="Parts that are fetched at once.")
    ] = 8,
    limit: Annotated[
        float, typer.Option("--limit", metavar="MB", min=0, help="Megabytes a second at most; 0 is no limit.")
    ] = 0.0,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Fetch what is missing of a model, and print its folder. It goes on where it was interrupted."""
    from wan_fixes.models import ModelEnsurer, Progress
    from wan_fixes.models.sources.rate import RateLimiter

    ensurer = ModelEnsurer(connections=connections, rate=RateLimiter(limit * 1e6))
    with progress_bar(model, in_bytes=True) as update:

        def came(progress: Progress) -> None:
            update(progress.done, progress.total)

        folder = ensurer.ensure(
            model,
            lock_timeout=lock_timeout,
            on_progress=came,
            on_wait=_Once(lambda holder: say_above_bars(f"{model}: waiting for {holder}")),
        )
    if as_json:
        print_json(ensurer.status(model).as_json())
    else:
        out.print(shown(folder), soft_wrap=True)


@app.command("verify")
def verify(models: Models = None, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Read all files of these models, or of all that are there, and compare their digests. Exits with 4 when one is
    not complete; changes nothing.
    """
    from wan_fixes.models import ModelEnsurer, ModelState, Progress

    ensurer = ModelEnsurer()
    names = models or [name for name in _all_names(ensurer) if ensurer.status(name).folder.is_dir()]
    found = []
    for name in names:
        if ensurer.status(name).state is ModelState.NOT_PRESENT:
            found.append(ensurer.status(name))
            continue
        with progress_bar(f"verifying {name}", in_bytes=True) as update:

            def read(progress: Progress, update: Any = update) -> None:
                update(progress.done, progress.total)

            found.append(ensurer.verify_integrity(name, on_progress=read))
    _show(ensurer, found, as_json=as_json)
    _exit_unless_complete(found)


@manifest_app.command("validate")
def validate(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A manifest (default: the one in use).")] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Check a manifest and name everything that is wrong with it."""
    from wan_fixes.models import load_manifest

    manifest = load_manifest(file)
    names = [str(spec.name(variant)) for spec in manifest.models.values() for variant in spec.variants]
    if as_json:
        print_json({"manifest": str(manifest.path), "models": names})
    else:
        out.print(shown(f"{manifest.path}: {len(names)} models, nothing is wrong"), soft_wrap=True)


def _show(ensurer: ModelEnsurer, found: list[ModelStatus], *, as_json: bool) -> None:
    if as_json:
        print_json({"root": str(ensurer.resolver.root), "models": [status.as_json() for status in found]})
        return
    table = small_table("model", "state", "on disk", "to fetch", "verified", right=(2, 3))
    for status in found:
        state = shown(status.state.value, _STYLES.get(status.state.value, ""))
        there = _size(status.bytes_there) if status.bytes_there else ""
        spec, variant = ensurer.manifest.find(status.name)
        table.add_row(
            shown(spec.short_name(variant.name)), state, there, _size(status.bytes_needed), _day(status.verified_at)
        )
    out.print(table)
    for status in found:
        for what, files in (("missing", status.missing), ("wrong", status.corrupt), ("changed", status.unverified)):
            if files and status.folder.is_dir():
                more = f" and {len(files) - _FILES_SHOWN} more" if len(files) > _FILES_SHOWN else ""
                out.print(shown(f"{status.name}: {what}: {', '.join(files[:_FILES_SHOWN])}{more}"), soft_wrap=True)
    out.print(shown(f"in {ensurer.resolver.root}"), soft_wrap=True)


def _exit_unless_complete(found: list[ModelStatus]) -> None:
    from wan_fixes.models import ModelState

    if any(status.state is not ModelState.COMPLETE for status in found):
        raise typer.Exit(ExitCode.INCOMPLETE)


def _all_names(ensurer: ModelEnsurer) -> list[str]:
    models = ensurer.manifest.models.values()
    return [spec.short_name(variant) for spec in models for variant in spec.variants]


def _has_sizes(files: Any) -> bool:
    return bool(files) and all(file.size is not None for file in files)


def _size(count: int | None) -> str:
    return "?" if count is None else size_text(count)


def _day(seconds: float | None) -> str:
    return "never" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


class _Once:
    """Says each text one time."""

    def __init__(self, say: Any) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)
