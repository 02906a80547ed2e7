"""Finding the files of a folder: in the same order everywhere, each folder once, nothing that can't be read."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Final, TypeAlias

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


#: Bytes, time of change (ns) and file id (0 where there is none): while they are the same, so is the file. Tuples and
#: no class of their own, as the garbage collector goes over 100,000 objects of a class again and again.
FileState: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class ScanResult:
    """The regular files of a folder, sorted, with their states, and what had to be left out."""

    #: As text: there can be 100,000 of them.
    paths: list[str] = field(default_factory=list)
    states: list[FileState] = field(default_factory=list)
    #: Path and reason.
    problems: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """The paths, as such."""
        return [Path(path) for path in self.paths]


def scan_folder(folder: str | os.PathLike[str], *, recursive: bool = True) -> ScanResult:
    """List the files of `folder`, sorted by name, with those of its subfolders if `recursive`.

    Links are followed. However folders link to one another, each is entered once: by its own name if it lies in
    `folder`, else by the first link. Hidden files and folders (a leading dot) are skipped. What is no regular
    file, what a link doesn't find, and folders that can't be read are reported as problems; nothing is opened.
    """
    files: list[tuple[str, FileState]] = []
    # Windows keeps no file ids in its folders, and updates sizes and times there when it likes.
    status_of = os.stat if os.name == "nt" else os.DirEntry.stat
    problems: list[tuple[str, str]] = []
    entered: set[object] = set()
    waiting = deque([os.fspath(Path(folder))])
    linked: deque[str] = deque()  # after all others, so that a folder's own name wins
    while waiting or linked:
        current = waiting.popleft() if waiting else linked.popleft()
        try:
            identity = _identity(Path(current))
            if identity in entered:
                continue
            entered.add(identity)
            with os.scandir(current) as found:
                entries = sorted((entry for entry in found if entry.name[0] != "."), key=attrgetter("name"))
        except OSError as error:
            problems.append((current, _why(error)))
            continue
        for entry in entries:
            try:
                status = status_of(entry)
            except OSError as error:
                problems.append((entry.path, why_no_status(entry.path, error).reason))
                continue
            if stat.S_ISREG(status.st_mode):
                files.append((entry.path, (status.st_size, status.st_mtime_ns, status.st_ino)))
            elif not stat.S_ISDIR(status.st_mode):
                problems.append((entry.path, "not a regular file but a pipe or a device"))
            elif recursive:
                (linked if entry.is_symlink() else waiting).append(entry.path)
    if len(entered) > 1:
        files.sort(key=_sort_key)
    return ScanResult(
        [path for path, _ in files],
        [state for _, state in files],
        [(Path(path), reason) for path, reason in sorted(problems, key=_sort_key)],
    )


def _identity(folder: Path) -> object:
    """The same for two paths exactly when they lead to the same folder."""
    status = folder.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else folder.resolve()  # some network drives number nothing


def _sort_key(found: tuple[str, object]) -> list[str]:
    """The parts of a path: a folder's files stand together, before those of another whose name goes on."""
    return found[0].split(os.sep)  # noqa: PTH206 - of 100,000 paths


def _why(error: OSError) -> str:
    """Why a folder cannot be listed."""
    if isinstance(error, PermissionError):
        return "no permission to read the folder"
    if isinstance(error, FileNotFoundError):
        return "the folder does not exist (a broken link?)"
    return f"the folder cannot be read: {error.strerror or error}"
