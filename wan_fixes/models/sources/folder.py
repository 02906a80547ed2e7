"""Folders on this machine or its network that hold models: another disk, a share of the studio's.

`WAN_MODELS_LOCAL` names them. Each may be laid out like `MODELS_ROOT`, have the repositories as folders (``NAME`` or
``OWNER/NAME``), or be a model's folder itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import Verified
from wan_fixes.models.listing import INDEX_NAME, Listing, RemoteFile, is_fetched
from wan_fixes.models.names import ModelName
from wan_fixes.models.partial_file import PART_BYTES
from wan_fixes.models.records import FileRecord, record_of
from wan_fixes.models.sources.revision import revision_of
from wan_fixes.models.spec import ModelSpec, VariantSpec

LOCAL_VARIABLE: Final = "WAN_MODELS_LOCAL"
_CHUNK_BYTES: Final = 1 << 20


def local_folders() -> list[Path]:
    """Those that the environment names."""
    named = os.environ.get(LOCAL_VARIABLE, "").split(os.pathsep)
    return [Path(text).expanduser() for text in named if text.strip()]


def folders_of_model(folder: Path, spec: ModelSpec, variant: VariantSpec, name: ModelName) -> Iterator[Path]:
    """The folders below `folder`, or it itself, that may be this model's."""
    repository = variant.hub.repository
    for path in (
        folder / spec.family / name.folder_name,
        folder / name.folder_name,
        folder / repository.partition("/")[2],
        folder / repository,
        folder,
    ):
        if (path / INDEX_NAME).is_file():
            yield path


class Readings:
    """Records of files that were read, which need not be read again while their size and time stay the same."""

    def __init__(self) -> None:
        self._records: dict[Path, FileRecord] = {}

    def at(self, path: Path) -> FileRecord | None:
        """That of a file that was read, and is as it was then. The path is resolved."""
        record = self._records.get(path)
        return record if record is not None and record.is_as(path) else None

    def read(self, path: Path) -> FileRecord:
        """The record of a file. Raises OSError."""
        path = path.resolve()
        record = self.at(path) or record_of(path, PART_BYTES)
        self._records[path] = record
        return record


class FolderStore:
    """A model's folder as a `Source`. It is read, and never written.

    Parameters
    ----------
    with_digests:
        Read all files for their digests, so that they can be linked; else those of an unknown digest are copied.
    components:
        Those of the model, where they are known: what is neither in them nor the index is no file of it.
    """

    #: Whether the network is needed for it, which `WAN_MODELS_OFFLINE` forbids.
    is_local = True

    def __init__(self, folder: Path, *, with_digests: bool = False, components: Collection[str] | None = None) -> None:
        self._folder = folder
        self._with_digests = with_digests
        self._components = components
        self._readings = Readings()
        self.label = f"folder:{folder}"

    def paths_of(self, file: RemoteFile) -> Iterator[Path]:
        """Where it may have a file."""
        path = self._folder / file.path
        if is_file(path):
            yield path.resolve()

    def record_at(self, path: Path) -> FileRecord | None:
        """Of a file that was read for the listing, and is as it was then."""
        return self._readings.at(path)

    def listing(self, revision: str | None = None) -> Listing:
        """The files as they are now; with digests where the folder has a record of them (`.verified.json`)."""
        verified = Verified.read(self._folder)
        try:
            found = [
                self._file(path, verified)
                for path in sorted(self._folder.rglob("*"))
                if path.is_file() and self._is_wanted(path)
            ]
        except OSError as error:
            raise self._unreadable(error, self._folder) from error
        revision = verified.revision if verified is not None else ""
        if not revision:
            revision = revision_of((file.path, file.size, file.sha256 or str(mtime_ns)) for file, mtime_ns in found)
        return Listing(self.label, revision, tuple(file for file, _ in found))

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> FolderPiece:
        """A part of a file. Its size and time name its state."""
        path = self._folder / file.path
        try:
            state = path.stat()
        except OSError as error:
            raise self._unreadable(error, path) from error
        piece = FolderPiece(path, start, stop, state.st_size, f"{state.st_size}-{state.st_mtime_ns}")
        if etag and piece.etag != etag:
            raise ModelError(
                ErrorCode.SOURCE_CHANGED,
                "a file changed while it was copied",
                path=path,
                reason="its size or time is another than when it was begun",
                fix="run it again: it is copied anew",
            )
        return piece

    def close(self) -> None:
        """Nothing is held open."""

    def _is_wanted(self, path: Path) -> bool:
        if not is_fetched(path.name) or path.name.startswith("."):
            return False
        parts = path.relative_to(self._folder).parts
        return self._components is None or parts == (INDEX_NAME,) or parts[0] in self._components

    def _file(self, path: Path, verified: Verified | None) -> tuple[RemoteFile, int]:
        """What is listed of a file, and its time (ns)."""
        name = path.relative_to(self._folder).as_posix()
        record = None if verified is None else verified.right(self._folder, name)
        if record is None and self._with_digests:
            record = self._readings.read(path)
        state = path.stat()
        return RemoteFile(name, state.st_size, "" if record is None else record.sha256), state.st_mtime_ns

    def _unreadable(self, error: OSError, path: Path) -> ModelError:
        is_gone = isinstance(error, FileNotFoundError)
        return ModelError(
            ErrorCode.NOT_FOUND if is_gone else ErrorCode.NETWORK,
            "a file of a local folder cannot be read",
            path=path,
            reason=error.strerror or str(error),
            fix=f"check the drive, or leave the folder out of {LOCAL_VARIABLE}",
        )


def is_file(path: Path) -> bool:
    """Whether there is a file; also no where nobody can tell, since its drive is gone."""
    return os.path.isfile(path)  # noqa: PTH113 - that raises then


@dataclass
class FolderPiece:
    """Bytes of a file of a folder, as a `Piece`."""

    path: Path
    start: int
    stop: int
    total: int | None
    etag: str
    is_whole: bool = False

    def chunks(self) -> Iterator[bytes]:
        """The bytes. Raises ModelError, also when the drive goes away."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                left = self.stop - self.start
                while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise ModelError(
                ErrorCode.NETWORK,
                "a file of a local folder cannot be read",
                path=self.path,
                reason=error.strerror or str(error),
                fix="check the drive and run it again: it goes on where it was",
            ) from error

    def close(self) -> None:
        """Nothing is held open between chunks' readers."""
