"""Folders on this machine or its network that hold models: another disk, a share of the studio's.

`WAN_MODELS_LOCAL` names them. Each may be laid out like `MODELS_ROOT`, have the repositories as folders (``NAME`` or
``OWNER/NAME``), or be a model's folder itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import Verified
from wan_fixes.models.listing import INDEX_NAME, Listing, RemoteFile, check_listing, is_fetched
from wan_fixes.models.names import ModelName
from wan_fixes.models.records import sha256_of
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


class FolderStore:
    """A model's folder as a `Source`. It is read, and never written.

    Parameters
    ----------
    with_digests:
        Read all files for their digests, so that they can be linked; else those of an unknown digest are copied.
    """

    #: Whether the network is needed for it, which `WAN_MODELS_OFFLINE` forbids.
    is_local = True

    def __init__(self, folder: Path, *, with_digests: bool = False) -> None:
        self._folder = folder
        self._with_digests = with_digests
        self.label = f"folder:{folder}"

    def paths_of(self, file: RemoteFile) -> Iterator[Path]:
        """Where it may have a file."""
        path = self._folder / file.path
        if path.is_file():
            yield path.resolve()

    def listing(self, revision: str | None = None) -> Listing:
        """The files as they are now; with digests where the folder has a record of them (`.verified.json`)."""
        verified = Verified.read(self._folder)
        try:
            files = [
                self._file(path, verified)
                for path in sorted(self._folder.rglob("*"))
                if path.is_file() and is_fetched(path.name) and not path.name.startswith(".")
            ]
        except OSError as error:
            raise self._unreadable(error, self._folder) from error
        revision = verified.revision if verified is not None else ""
        listing = Listing(self.label, revision or "as it is", tuple(files))
        check_listing(listing)
        return listing

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

    def _file(self, path: Path, verified: Verified | None) -> RemoteFile:
        name = path.relative_to(self._folder).as_posix()
        record = None if verified is None else verified.right(self._folder, name)
        sha256 = "" if record is None else record.sha256
        if not sha256 and self._with_digests:
            sha256 = sha256_of(path)
        return RemoteFile(name, path.stat().st_size, sha256)

    def _unreadable(self, error: OSError, path: Path) -> ModelError:
        is_gone = isinstance(error, FileNotFoundError)
        return ModelError(
            ErrorCode.NOT_FOUND if is_gone else ErrorCode.NETWORK,
            "a file of a local folder cannot be read",
            path=path,
            reason=error.strerror or str(error),
            fix=f"check the drive, or leave the folder out of {LOCAL_VARIABLE}",
        )


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
