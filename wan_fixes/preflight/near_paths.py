"""Where a path of a preset leads, and existing paths that may be meant by one that leads nowhere: misspelt or moved."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

_MOST_FOLDERS: Final = 1000  # entries of one folder that are looked at for a path that has moved
_MARKS: Final = " \t\r\n\"'\u201c\u201d\u2018\u2019"


def first_place(text: str, folders: Sequence[Path]) -> Path:
    """A path to read from: as it is when absolute, else in the first of `folders` that holds it, else in the last.

    A preset thus works with what lies beside it, and, as in OneTrainer, with what lies in the working folder.
    """
    path = expanded(text)
    if path.is_absolute():
        return path
    return next((folder / path for folder in folders if _exists(folder / path)), folders[-1] / path)


def expanded(text: str) -> Path:
    """The path that a text spells, with ``~`` as the home folder where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~ of somebody whom this machine does not know
        return Path(text)


def real_path(path: Path) -> str:
    """A path without links, so that two of the same folder are equal; a name that no system has stays as it is."""
    try:
        return os.path.normcase(os.path.realpath(path))
    except (OSError, ValueError):
        return str(path)


def lies_in(path: str, folder: str) -> bool:
    """Whether one of two real paths is the other, or below it."""
    return path == folder or path.startswith(os.path.join(folder, ""))  # noqa: PTH118


def near_path(path: Path) -> Path | None:
    """The existing path that is most likely meant, or None."""
    return closest_path(path) or moved_path(path)


def closest_path(path: Path) -> Path | None:
    """The existing path nearest to `path`, or None: each part that is missing gives way to its nearest sibling."""
    found = Path(path.anchor)
    for part in path.absolute().parts[1:]:
        if _exists(found / part):
            found = found / part
            continue
        try:
            siblings = {entry.name.lower(): entry.name for entry in found.iterdir()}
        except OSError:
            return None
        close = difflib.get_close_matches(part.lower(), siblings, n=1, cutoff=0.6)
        if not close:
            return None
        found = found / siblings[close[0]]
    return found


def moved_path(path: Path) -> Path | None:
    """An existing path that ends as `path` does, or None: on another drive, or in another folder near where it was.

    Looked for are the last parts of the path, as many as possible, in each folder that is left of it and one below.
    """
    parts = path.absolute().parts[1:]
    places = list(_places_near(path))
    for count in range(len(parts), 0, -1):
        tail = Path(*parts[-count:])
        for folder in places:
            if _exists(folder / tail):
                return folder / tail
    return None


def as_meant(text: str, find: Callable[[str], Path]) -> str | None:
    r"""`text` as it leads to something that exists: without quotes and blanks around it, with ``/`` for ``\``.

    Windows' Explorer copies a path with its quotes, and a preset from Windows has its separators. None where that
    changes nothing, or leads nowhere either.

    Parameters
    ----------
    find:
        Gives the path of a text, whether it exists or not.
    """
    bare = text.strip(_MARKS)
    for meant in (bare, bare.replace("\\", "/")):
        if meant and meant != text and _exists(find(meant)):
            return meant
    return None


def _places_near(path: Path) -> Iterator[Path]:
    if path.absolute().drive:
        yield from (Path(f"{letter}:\\") for letter in string.ascii_uppercase if Path(f"{letter}:\\").exists())
    for folder in path.absolute().parents[:-1]:
        if not _is_folder(folder):
            continue
        yield folder
        with contextlib.suppress(OSError):
            entries = itertools.islice(folder.iterdir(), _MOST_FOLDERS)
            yield from sorted(entry for entry in entries if _is_folder(entry))


# pathlib's own raise for names that are too long, and for folders that may not be entered.


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112
