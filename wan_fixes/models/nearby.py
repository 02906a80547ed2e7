"""Files that this machine has already, under another name: they are linked, and not fetched again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from wan_fixes.models.installed import VERIFIED_NAME, Verified
from wan_fixes.models.linking import share_or_point
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.records import FileRecord, matching_record

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
        for folder in model_folders(self._root):
            verified = Verified.read(folder) if folder != self._but else None
            if verified is not None:
                for path in verified.files:
                    record = verified.right(folder, path)
                    if record is not None:
                        yield record.sha256, folder / path


def model_folders(root: Path) -> list[Path]:
    """The folders of published models below a root, and of kept versions of them."""
    patterns = (f"wan2?/*/{VERIFIED_NAME}", f"versions/*/*/{VERIFIED_NAME}")
    return sorted(found.parent for pattern in patterns for found in root.glob(pattern))


def link_files(
    files: Sequence[RemoteFile],
    places: Sequence[Place],
    folder: Path,
    part_bytes: int,
    *,
    smallest: int = SMALLEST_SHARED,
    came: Callable[[int, str], None] = lambda *_: None,
    on_link: Callable[[str], None] = lambda _: None,
) -> dict[str, FileRecord]:
    """Link those of `files` that a place has into `folder`; returns a record of each that is there now, by path.

    Each is read first, and its digest compared: a file whose digest nobody knows is not looked for. What cannot be
    linked is left for a source to bring. `on_link` is told the label of the place, `came` the bytes and the path.
    """
    records = {}
    for file in files:
        if file.size < smallest or (folder / file.path).exists() or not (file.sha256 or file.git_id):
            continue
        for place in places:
            record = _link(file, place, folder / file.path, part_bytes, came)
            if record is not None:
                records[file.path] = record
                on_link(place.label)
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

        record = matching_record(path, file, part_bytes, on_bytes=more)
        target.parent.mkdir(parents=True, exist_ok=True)
        if record is not None and share_or_point(path, target):
            return record
        came(-read, file.path)
    return None
