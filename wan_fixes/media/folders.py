"""Finding the files of a folder: in the same order everywhere, each folder once, nothing that can't be read."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wan_fixes.media.diagnosis import why_no_status

#: The extensions that OneTrainer knows, so that both hosts find the same samples.
VIDEO_EXTENSIONS: Final = frozenset({".webm", ".mkv", ".flv", ".avi", ".mov", ".wmv", ".mp4", ".mpeg", ".m4v"})
IMAGE_EXTENSIONS: Final = frozenset({".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".avif"})

#: Endings of OneTrainer's masks and conditioning images, which are no samples.
MASK_POSTFIXES: Final = ("-masklabel", "-condlabel")


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a video; says nothing of the content."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of an image; says nothing of the content."""
    return Path(path).suffix.lower() in IMAGE_EXTENSIONS


def is_sample(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a clip or an image to train on; says nothing of the content."""
    return (is_video(path) or is_image(path)) and not Path(path).stem.endswith(MASK_POSTFIXES)


@dataclass(frozen=True)
class ScanResult:
    """The regular files of a folder, sorted, and what had to be left out."""

    files: list[Path] = field(default_factory=list)
    #: Path and reason.
    problems: list[tuple[Path, str]] = field(default_factory=list)


def scan_folder(folder: str | os.PathLike[str], *, recursive: bool = True) -> ScanResult:
    """List the files of `folder`, sorted by name, with those of its subfolders if `recursive`.

    Links are followed. However folders link to one another, each is entered once: by its own name if it lies in
    `folder`, else by the first link. Hidden files and folders (a leading dot) are skipped. What is no regular
    file, what a link doesn't find, and folders that can't be read are reported as problems; nothing is opened.
    """
    top = Path(folder)
    files: list[Path] = []
    problems: list[tuple[Path, str]] = []
    entered: set[object] = set()
    waiting = deque([top])
    linked: deque[Path] = deque()  # after all others, so that a folder's own name wins
    while waiting or linked:
        current = waiting.popleft() if waiting else linked.popleft()
        try:
            identity = _identity(current)
            if identity in entered:
                continue
            entered.add(identity)
            with os.scandir(current) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            problems.append((current, _why(error)))
            continue
        for name in names:
            path = current / name
            try:
                mode = path.stat().st_mode
            except OSError as error:
                problems.append((path, why_no_status(path, error).reason))
                continue
            if stat.S_ISREG(mode):
                files.append(path)
            elif not stat.S_ISDIR(mode):
                problems.append((path, "not a regular file but a pipe or a device"))
            elif recursive:
                (linked if path.is_symlink() else waiting).append(path)
    return ScanResult(sorted(files, key=_sort_key), sorted(problems, key=lambda problem: _sort_key(problem[0])))


def _identity(folder: Path) -> object:
    """The same for two paths exactly when they lead to the same folder."""
    status = folder.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else folder.resolve()  # some network drives number nothing


def _sort_key(path: Path) -> tuple[str, ...]:
    return path.parts


def _why(error: OSError) -> str:
    """Why a folder cannot be listed."""
    if isinstance(error, PermissionError):
        return "no permission to read the folder"
    if isinstance(error, FileNotFoundError):
        return "the folder does not exist (a broken link?)"
    return f"the folder cannot be read: {error.strerror or error}"
