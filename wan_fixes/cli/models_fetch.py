"""`wan models ensure` and `repair`: fetching what is missing, and what is spoilt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wan_fixes.cli.bars import progress_bar
from wan_fixes.cli.console import AsJson, Debug, out, print_json, report, say_above_bars, shown
from wan_fixes.cli.models_view import Models, Once, bytes_bar, finite_only, names_there, work_on_each, worst
from wan_fixes.health.text import plain

if TYPE_CHECKING:
    from wan_fixes.models.sources.source import Source
    from wan_fixes.models.target import Target


def ensure(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="As `wan models list` shows them.")],
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
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=16, help="Models that are fetched at once; the others queue.")
    ] = 1,
    limit: Annotated[
        float,
        typer.Option(
            "--limit", metavar="MB", min=0, callback=finite_only, help="Megabytes a second at most; 0 is no limit."
        ),
    ] = 0.0,
    links: Annotated[
        Path | None,
        typer.Option("--links", metavar="FILE", help="Ask the links in this file first; `wan models share` writes it."),
    ] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Fetch what is missing of models, and print their folders. It goes on where it was interrupted."""
    from wan_fixes.models import FetchOptions, ModelEnsurer, Progress
    from wan_fixes.models.queue import ensure_all
    from wan_fixes.models.sources.links import LinkStore, name_of_links
    from wan_fixes.models.sources.order import sources_of
    from wan_fixes.models.sources.rate import RateLimiter

    options = FetchOptions(connections=connections, rate=RateLimiter(limit * 1e6))

    def sources(target: Target) -> Iterator[Source]:
        if links is not None and linked in (None, str(target.name)):
            yield LinkStore(links, target.name)
        yield from sources_of(target, options.retry)

    ensurer = ModelEnsurer(options=options, make_sources=sources)
    linked = None  # of a single model the links are looked at when it is fetched
    if links is not None and len(models) > 1:
        linked = name_of_links(links, [ensurer.target(name).name for name in models])
    far: dict[str, Progress] = {}
    with progress_bar(", ".join(plain(name, 60) for name in models), in_bytes=True) as update:

        def came(progress: Progress) -> None:
            far[progress.name] = progress
            update(sum(one.done for one in far.values()), sum(one.total for one in far.values()))

        outcomes = ensure_all(
            ensurer,
            models,
            at_once=at_once,
            lock_timeout=lock_timeout,
            on_progress=came,
            on_wait=Once(lambda holder: say_above_bars(f"waiting for {holder}")),
        )
    failed = [report(outcome.error) for outcome in outcomes if outcome.error is not None]
    done = [outcome for outcome in outcomes if outcome.folder is not None]
    if as_json:
        print_json({"models": [ensurer.status(outcome.name).as_json() for outcome in done]})
    else:
        for outcome in done:
            out.print(shown(outcome.folder), soft_wrap=True)
    if failed:
        raise typer.Exit(worst(failed))


def repair(models: Models = None, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Read all files of these models, or of all that are there, and fetch the parts that are not as they should be."""
    from wan_fixes.models import ModelEnsurer, ModelStatus

    ensurer = ModelEnsurer()

    def repaired(name: str) -> ModelStatus:
        with bytes_bar(f"repairing {name}") as came:
            return ensurer.repair(name, on_progress=came)

    work_on_each(ensurer, models or names_there(ensurer), repaired, as_json=as_json)
