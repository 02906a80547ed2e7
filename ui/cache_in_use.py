"""Whether a run is at work on a cache, which nobody may repair meanwhile."""

from __future__ import annotations

from pathlib import Path

from wan_fixes.errors import UserError
from wan_fixes.health import RunReader
from wan_fixes.ui.watch import cache_folder


def refuse_while_in_use(cache: Path, database: Path | None) -> None:
    """Raise `UserError` while a run of this run database works on a cache in this folder, or around it."""
    if database is None or not database.is_file():
        return
    for run in RunReader(database).runs():
        used = cache_folder(run.config)
        if run.status == "running" and (used is None or _overlap(used.resolve(), cache.resolve())):
            raise UserError(
                "the cache is not repaired",
                path=cache,
                reason=f"run {run.id} ({run.kind}) is at work on it, as process {run.pid} on {run.host}",
                fix="wait until it has ended, or stop it",
            )


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
