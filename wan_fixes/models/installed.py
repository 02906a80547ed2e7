"""What is on the disk of a model: complete, partly there, spoilt, or nothing. Nothing is read but names and sizes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.listing import Listing, RemoteFile
from wan_fixes.models.names import ModelName, problem_with_path
from wan_fixes.models.partial_file import PartialFile
from wan_fixes.models.records import FileRecord

VERIFIED_NAME: Final = ".verified.json"
#: What that is called while the model is removed: the folder counts as nothing then, and the next run removes the rest.
REMOVING_NAME: Final = ".removing.json"
_FORMAT: Final = 1


class ModelState(str, Enum):
    """How a model is on the disk. VERIFYING: somebody reads or mends it just now."""

    NOT_PRESENT = "NOT_PRESENT"
    PARTIAL = "PARTIAL"
    VERIFYING = "VERIFYING"
    COMPLETE = "COMPLETE"
    CORRUPT = "CORRUPT"


@dataclass(frozen=True)
class Verified:
    """`.verified.json`: the files of a model folder as they were when all their digests were right.

    Attributes
    ----------
    source, revision:
        Where they came from.
    files:
        A record of each, by path.
    seconds:
        When (since 1970, UTC).
    wrong:
        Files that were found spoilt since, by path, with the time that they had then (ns): the record is of what
        they should be.
    """

    name: str
    source: str
    revision: str
    files: Mapping[str, FileRecord]
    seconds: float
    wrong: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def now(cls, name: ModelName, listing: Listing, files: Mapping[str, FileRecord]) -> Verified:
        """That they are right at this moment."""
        return cls(str(name), listing.source, listing.revision, dict(files), time.time())

    def write(self, folder: Path) -> None:
        """Put it into a model folder. Raises ModelError."""
        files = {path: record.as_json() for path, record in self.files.items()}
        content = {"format": _FORMAT, "name": self.name, "source": self.source, "revision": self.revision}
        content |= {"seconds": self.seconds, "files": files, "wrong": dict(self.wrong)}
        write_json(folder / VERIFIED_NAME, content)

    @property
    def listing(self) -> Listing:
        """What the model consisted of then."""
        files = tuple(RemoteFile(path, record.size, record.sha256) for path, record in self.files.items())
        return Listing(self.source, self.revision, files)

    @classmethod
    def listing_in(cls, folder: Path) -> Listing | None:
        """Of the model in a folder, or None where there is no sound record."""
        verified = cls.read(folder)
        return None if verified is None else verified.listing

    def right(self, folder: Path, path: str) -> FileRecord | None:
        """The record of a file that is still as it was when its digest was right; nothing is read."""
        record = self.files.get(path)
        is_right = record is not None and path not in self.wrong and record.is_as(folder / path)
        return record if is_right else None

    @classmethod
    def read(cls, folder: Path) -> Verified | None:
        """That of a model folder, or None where there is no sound one."""
        content: Any = read_json(folder / VERIFIED_NAME)
        try:
            if content["format"] != _FORMAT or any(map(problem_with_path, content["files"])):
                return None
            files = {path: FileRecord.from_json(record) for path, record in content["files"].items()}
            wrong = {str(path): int(mtime_ns) for path, mtime_ns in content.get("wrong", {}).items()}
            return cls(content["name"], content["source"], content["revision"], files, float(content["seconds"]), wrong)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True)
class ModelStatus:
    """What `status` tells.

    Attributes
    ----------
    missing:
        Files that are not there, or not whole.
    corrupt:
        Files of another size than they should have.
    unverified:
        Files that changed since their digest was taken: their size is right, and the rest is not known.
    bytes_needed:
        To be fetched until it is complete; None where nobody knows yet how large it is.
    bytes_there:
        Of it, on the disk.
    verified_at:
        When all digests were right the last time (seconds since 1970); None where they never were.
    """

    name: str
    state: ModelState
    folder: Path
    missing: tuple[str, ...] = ()
    corrupt: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    bytes_needed: int | None = None
    bytes_there: int = 0
    verified_at: float | None = None
    revision: str = ""
    source: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs: the schema `model-status` describes it (`wan models schema`)."""
        return {
            "name": self.name,
            "state": self.state.value,
            "folder": str(self.folder),
            "missing": list(self.missing),
            "corrupt": list(self.corrupt),
            "unverified": list(self.unverified),
            "bytes_needed": self.bytes_needed,
            "bytes_there": self.bytes_there,
            "verified_at": self.verified_at,
            "revision": self.revision,
            "source": self.source,
        }


def look_at(name: ModelName, folder: Path, partial: Path, listing: Listing | None) -> ModelStatus:
    """The state of a model in `folder`, or on its way there in `partial`. `listing` is what it should be, if known."""
    verified = Verified.read(folder)
    if verified is not None and verified.name == str(name) and (listing is None or _is_of(verified, listing)):
        return _of_verified(name, folder, verified)
    if folder.is_dir():
        return _of_unverified(name, folder, listing)
    if listing is None:
        there = _bytes_below(partial)
        state = ModelState.PARTIAL if there else ModelState.NOT_PRESENT
        return ModelStatus(str(name), state, folder, bytes_there=there)
    missing = tuple(file.path for file in listing.files if _size(partial / file.path) != file.size)
    there = bytes_fetched(partial, listing)
    return ModelStatus(
        str(name),
        ModelState.PARTIAL if partial.is_dir() else ModelState.NOT_PRESENT,
        folder,
        missing=missing,
        bytes_needed=listing.bytes - there,
        bytes_there=there,
        revision=listing.revision,
        source=listing.source,
    )


def _is_of(verified: Verified, listing: Listing) -> bool:
    """Whether what was verified is what is wanted now: the same files with the same content."""
    return verified.files.keys() >= {file.path for file in listing.files} and all(
        verified.files[file.path].is_of(file) for file in listing.files
    )


def _of_verified(name: ModelName, folder: Path, verified: Verified) -> ModelStatus:
    missing, corrupt, unverified, there = [], [], [], 0
    for path, record in verified.files.items():
        try:
            state = (folder / path).stat()
        except OSError:
            missing.append(path)
            continue
        if state.st_size != record.size or verified.wrong.get(path) == state.st_mtime_ns:
            corrupt.append(path)
            continue
        there += record.size
        if state.st_mtime_ns != record.mtime_ns:
            unverified.append(path)
    if corrupt:
        found = ModelState.CORRUPT
    else:
        found = ModelState.PARTIAL if missing or unverified else ModelState.COMPLETE
    return ModelStatus(
        str(name),
        found,
        folder,
        tuple(missing),
        tuple(corrupt),
        tuple(unverified),
        bytes_needed=sum(verified.files[path].size for path in (*missing, *corrupt)),
        bytes_there=there,
        verified_at=verified.seconds,
        revision=verified.revision,
        source=verified.source,
    )


def _of_unverified(name: ModelName, folder: Path, listing: Listing | None) -> ModelStatus:
    """A folder without a record: put there by hand, or of another revision."""
    if listing is None:
        return ModelStatus(str(name), ModelState.PARTIAL, folder, bytes_there=_bytes_below(folder))
    sizes = {file.path: _size(folder / file.path) for file in listing.files}
    missing = tuple(path for path, size in sizes.items() if size is None)
    corrupt = tuple(file.path for file in listing.files if sizes[file.path] not in (None, file.size))
    rest = tuple(path for path in sizes if path not in {*missing, *corrupt})
    return incomplete(name, folder, listing, missing, corrupt, rest)


def incomplete(
    name: ModelName,
    folder: Path,
    listing: Listing,
    missing: tuple[str, ...],
    corrupt: tuple[str, ...],
    unverified: tuple[str, ...] = (),
    verified_at: float | None = None,
) -> ModelStatus:
    """The state of a published folder that should hold the files of `listing`, and lacks some."""
    needed = sum(file.size for file in listing.files if file.path in {*missing, *corrupt})
    return ModelStatus(
        str(name),
        ModelState.CORRUPT if corrupt else ModelState.PARTIAL,
        folder,
        missing,
        corrupt,
        unverified,
        bytes_needed=needed,
        bytes_there=listing.bytes - needed,
        verified_at=verified_at,
        revision=listing.revision,
        source=listing.source,
    )


def bytes_fetched(partial: Path, listing: Listing) -> int:
    """How much of these files is in the folder where they are fetched to, as earlier starts noted it."""
    return sum(bytes_of_file(partial, file) for file in listing.files)


def bytes_of_file(partial: Path, file: RemoteFile) -> int:
    """The same of one file."""
    whole = _size(partial / file.path)
    return file.size if whole == file.size else PartialFile(partial / file.path, file).bytes_on_disk()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _bytes_below(folder: Path) -> int:
    sizes: Iterable[int | None] = (_size(path) for path in folder.rglob("*")) if folder.is_dir() else ()
    return sum(size or 0 for size in sizes)
