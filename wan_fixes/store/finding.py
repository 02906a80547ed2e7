"""Finds the sample stores of a folder of caches: a training has one for clips, one for captions, …"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_ENTRIES: Final = "samples/v*/entries"  # not the index, which may be lost and is made anew
_DEPTHS: Final = ("", "*/", "*/*/", "*/*/*/")


def find_stores(folder: Path) -> list[Path]:
    """The roots of all stores in a folder, and in three levels below it, in order. Nothing is opened."""
    return sorted({path.parent.parent for depth in _DEPTHS for path in folder.glob(depth + _ENTRIES)})
