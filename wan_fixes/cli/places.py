"""Finds what a command is asked about: the run database of a workspace, the caches of a preset or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wan_fixes.errors import NoRunError, UserError
from wan_fixes.health import RUN_DATABASE_NAME, RunReader, RunRecord, run_database_path

_RUNS_NAMED = 10  # in a message, of those that there are

Workspace = Annotated[
    Path, typer.Argument(metavar="[WORKSPACE|PRESET]", help="A workspace folder, a folder above it, or a preset.")
]
RunNumber = Annotated[
    int | None, typer.Option("--run", metavar="N", min=1, help="This run instead of the last one; see `wan runs`.")
]


def find_run_database(place: Path) -> Path:
    """The run database of a workspace, of a preset's workspace, or the latest of the workspaces below a folder.

    Raises `UserError` when there is none.
    """
    folder = _from_preset(place, "workspace_dir") if _is_preset(place) else place.absolute()
    if not folder.exists():
        raise _no_run(folder) if _is_preset(place) else _missing(folder, "workspace")
    below = (path for depth in ("", "*/", "*/*/") for path in folder.glob(depth + RUN_DATABASE_NAME))
    found = (path for path in (run_database_path(folder), *below) if path.is_file())
    latest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if latest is None:
        raise _no_run(folder)
    return latest


def expected_run_database(place: Path) -> Path:
    """The run database of a workspace, or of a preset's, that need not be there yet."""
    return run_database_path(_from_preset(place, "workspace_dir") if _is_preset(place) else place.absolute())


def find_run(database: RunReader, run_id: int | None) -> RunRecord:
    """The run of this number, or the last one. Raises `UserError` when there is none."""
    run = database.latest_run() if run_id is None else database.run(run_id)
    if run is not None:
        return run
    numbers = ", ".join(str(other.id) for other in database.runs()[:_RUNS_NAMED])
    kind = UserError if numbers else NoRunError
    raise kind(
        "there is no run" if run_id is None else f"there is no run {run_id}",
        path=database.path,
        reason=f"the last runs there are {numbers}" if numbers else "none was recorded",
        fix="name one of them" if numbers else "train first: wan train --config …",
    )


def find_cache_folder(place: Path) -> Path:
    """The folder of a preset's cache, which need not be there yet; or the folder itself."""
    return _from_preset(place, "cache_dir") if _is_preset(place) else place.absolute()


def find_sample_stores(place: Path) -> list[Path]:
    """The roots of all sample stores of a preset's cache, or below a folder; at least one.

    Raises `UserError` when there is none.
    """
    from wan_fixes.store.finding import find_stores

    folder = find_cache_folder(place)
    if not folder.exists() and not _is_preset(place):
        raise _missing(folder, "cache folder")
    roots = find_stores(folder)
    if not roots:
        raise UserError(
            "there is no cache",
            path=folder,
            reason="no sample has been cached there",
            fix="name the cache folder, or the preset that was trained",
        )
    return roots


def _is_preset(place: Path) -> bool:
    return place.suffix == ".json"


def _no_run(folder: Path) -> NoRunError:
    return NoRunError(
        "there is no run",
        path=folder,
        reason=f"neither it nor a folder in it holds {RUN_DATABASE_NAME}",
        fix="name the workspace folder, or the preset that was trained",
    )


def _missing(folder: Path, what: str) -> UserError:
    from wan_fixes.hosts.standalone.reading import missing_path

    return missing_path(folder, what)


def _from_preset(preset: Path, field: str) -> Path:
    """A folder that a preset names for writing, without asking whether the rest of the preset is sound."""
    from wan_fixes.hosts.standalone.onetrainer_fields import TRAIN
    from wan_fixes.hosts.standalone.reading import read_json

    data: Any = read_json(preset, "preset")
    named = data.get(field) if isinstance(data, dict) else None
    text = named if isinstance(named, str) and named else TRAIN[field].default
    return (Path.cwd() / Path(text).expanduser()).absolute()
