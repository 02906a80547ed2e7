"""Where the run database of a workspace lies: in it, or on a local disk when the workspace is on a network drive."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Final

import platformdirs

from wan_fixes.filesystem import network_file_system
from wan_fixes.health.text import plain

RUN_DATABASE_NAME: Final = "runs.sqlite"

logger = logging.getLogger(__name__)


def run_database_path(workspace: str | Path) -> Path:
    """The run database of `workspace`.

    On a network drive (the usual workspace of a rented GPU machine) its write-ahead log cannot be trusted, so it is
    kept in the user's state folder on this machine, under a name made of the workspace's path; that is logged.
    """
    folder = Path(workspace).absolute()
    kind = network_file_system(folder)
    if kind is None:
        return folder / RUN_DATABASE_NAME
    key = hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()
    state = Path(platformdirs.user_state_dir("wan-fixes", appauthor=False))
    place = state / "runs" / f"{folder.name}-{key}" / RUN_DATABASE_NAME
    logger.info("the workspace %s lies on %s: its runs are recorded in %s", plain(folder), kind, plain(place))
    return place
