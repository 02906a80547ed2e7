"""Files that this machine has already, under another name: they are linked, and not fetched again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from wan_fixes.models.correlation import model_logger
from wan_fixes.models.installed import VERIFIED_NAME, Verified
from wan_fixes.models.layout import folders_with
from wan_fixes.models.linking import share_or_point
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.records import FileRecord, matching_record

logger = model_logger(__name__)

#: A smaller file is fetched sooner than looked for.
SMALLEST_SHARED: Final = 1 << 16


class Place(Protocol):
    """Where a file may be."""

    @property
    def label(self) -> str:
        """For people."""

    def paths_of(self, file: RemoteFile) -> Iterable[Path]:
        """The files on this machine that may be this one; what is in them is looked at afterwards."""


class OtherModels:
    """The complete models below a root: they share encoder, tokenizer and VAE."""

    label = "another model"

    def __init__(self, root: Path, but: Path) -> None:
        self._root = root
        self._but = but
        self._known: dict[str, Path] | None = None

    def paths_of(self, file: RemoteFile) -> Iterator[Path]:
        """A file with that digest, unchanged since it was taken."""
        if self._known is None:
            self._known = dict(self._files())
        if file.sha256 in self._known:
            yield self._known[file.sha256]

    def _files(self) -> Iterator[tuple[str, Path]]:
        for folder in folders_with(self._root, VERIFIED_NAME):
            verified = Verified.read(folder) if folder != self._but else None
            if verified is not None:
                for path in verified.files:
                    record = verified.right(folder, path)
                    if record is not None:
                        yield record.sha256, folder / path


def link_files(
    files: Sequence[RemoteFile],
    places: Sequence[Place],
    folder: Path,
    part_bytes: int,
    *,
    smallest: int = SMALLEST_SHARED,
    came: Callable[[int, str], None] = lambda *_: None,
) -> dict[str, FileRecord]:
    """Link those of `files` that a place has into `folder`; returns a record of each that is there now, by path.

    Each is read first, and its digest compared: a file whose digest nobody knows is not looked for. What cannot be
    linked is left for a source to bring. `came` is told the bytes and the path.
    """
    records = {}
    for file in files:
        is_there = os.path.exists(folder / file.path)  # noqa: PTH110 - that raises where a drive is gone
        if file.size < smallest or is_there or not (file.sha256 or file.git_id):
            continue
        for place in places:
            record = _link(file, place, folder / file.path, part_bytes, came)
            if record is not None:
                records[file.path] = record
                break
    return records


def _link(
    file: RemoteFile, place: Place, target: Path, part_bytes: int, came: Callable[[int, str], None]
) -> FileRecord | None:
    for path in place.paths_of(file):
        read = 0

        def more(count: int) -> None:
            nonlocal read
            read += count
            came(count, file.path)

        record = _known_record(path, file, place)
        if record is not None:
            more(file.size)
        else:
            record = matching_record(path, file, part_bytes, on_bytes=more)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if record is not None and share_or_point(path, target):
                return record
        except OSError as error:
            logger.info("%s is not linked from %s: %s", file.path, place.label, error)
        came(-read, file.path)
    return None


def _known_record(path: Path, file: RemoteFile, place: Place) -> FileRecord | None:
    """That of a place that has just read the file itself, to say what it has."""
    record_at = getattr(place, "record_at", None)
    record: FileRecord | None = None if record_at is None else record_at(path)
    return record if record is not None and record.is_of(file) else None
