"""What files take on the disk, while others write and remove them: what is gone when looked at is passed over."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path


def states_of(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Each of these that is there, with its state; of a symbolic link its own."""
    for path in paths:
        try:
            state = path.lstat()
        except OSError:
            continue
        yield path, state


def states_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Each file below a folder, with its state."""
    # `rglob` raises where a folder vanishes.
    return states_of(Path(where, name) for where, _, names in os.walk(folder) for name in names)


def bytes_on_disk(states: Iterable[tuple[Path, os.stat_result]]) -> int:
    """On the disk: what has several names counts once, and a symbolic link nothing."""
    files = (state for _, state in states if not stat.S_ISLNK(state.st_mode))
    return sum({(state.st_dev, state.st_ino): state.st_size for state in files}.values())
