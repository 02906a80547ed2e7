"""Finds what a command is asked about: the run database of a workspace, the caches of a preset or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.health import RUN_DATABASE_NAME, run_database_path
from wan_fixes.hosts.standalone.onetrainer_fields import TRAIN
from wan_fixes.hosts.standalone.reading import missing_path, read_json

_ENTRIES = "samples/v*/entries"  # not the index, which may be lost and is made anew


def find_run_database(place: Path) -> Path:
    """The run database of a workspace, of a preset's workspace, or the latest of the workspaces below a folder.

    Raises `UserError` when there is none.
    """
    folder = _from_preset(place, "workspace_dir") if _is_preset(place) else place.absolute()
    if not folder.exists():
        raise _no_run(folder) if _is_preset(place) else missing_path(folder, "workspace")
    below = (path for depth in ("", "*/", "*/*/") for path in folder.glob(depth + RUN_DATABASE_NAME))
    found = (path for path in (run_database_path(folder), *below) if path.is_file())
    latest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if latest is None:
        raise _no_run(folder)
    return latest


def find_cache_folder(place: Path) -> Path:
    """The folder of a preset's cache, which need not be there yet; or the folder itself."""
    return _from_preset(place, "cache_dir") if _is_preset(place) else place.absolute()


def find_sample_stores(place: Path) -> list[Path]:
    """The roots of all sample stores of a preset's cache, or below a folder; at least one.

    Raises `UserError` when there is none.
    """
    folder = find_cache_folder(place)
    if not folder.exists() and not _is_preset(place):
        raise missing_path(folder, "cache folder")
    roots = {path.parent.parent for depth in ("", "*/", "*/*/", "*/*/*/") for path in folder.glob(depth + _ENTRIES)}
    if not roots:
        raise UserError(
            "there is no cache",
            path=folder,
            reason="no sample has been cached there",
            fix="name the cache folder, or the preset that was trained",
        )
    return sorted(roots)


def _is_preset(place: Path) -> bool:
    return place.suffix == ".json"


def _no_run(folder: Path) -> UserError:
    return UserError(
        "there is no run",
        path=folder,
        reason=f"neither it nor a folder in it holds {RUN_DATABASE_NAME}",
        fix="name the workspace folder, or the preset that was trained",
    )


def _from_preset(preset: Path, field: str) -> Path:
    """A folder that a preset names for writing, without asking whether the rest of the preset is sound."""
    data: Any = read_json(preset, "preset")
    named = data.get(field) if isinstance(data, dict) else None
    text = named if isinstance(named, str) and named else TRAIN[field].default
    return (Path.cwd() / Path(text).expanduser()).absolute()
