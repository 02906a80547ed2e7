"""The hub client's own cache on this machine: what it has is used where it lies, and not fetched again.

``models--OWNER--NAME/blobs/DIGEST`` are the files, by sha256 or git's id, and ``snapshots/COMMIT/PATH`` their names:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import Listing, RemoteFile, is_fetched
from wan_fixes.models.records import FileRecord
from wan_fixes.models.sources.folder import FolderPiece, Readings, is_file
from wan_fixes.models.spec import HubSource

_DIGEST: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def hub_cache_folder() -> Path:
    """As the hub's client finds it: `HF_HUB_CACHE`, else below `HF_HOME`."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface").expanduser() / "hub"


class HubCache:
    """What the cache has of one repository, as a place to link from, and as a `Source` where there is no other."""

    #: Whether the network is needed for it, which `WAN_MODELS_OFFLINE` forbids.
    is_local = True

    def __init__(self, source: HubSource, folder: Path | None = None) -> None:
        self._source = source
        self.folder = (folder or hub_cache_folder()) / f"models--{source.repository.replace('/', '--')}"
        self._readings = Readings()
        self.label = f"hub cache:{source.repository}"

    def paths_of(self, file: RemoteFile) -> Iterator[Path]:
        """Where the cache may have a file: by its digest, which is the name there; else below its path."""
        digest = file.sha256 or file.git_id
        blob = self.folder / "blobs" / digest
        if not digest:
            return
        if is_file(blob):
            yield blob.resolve()
            return
        # On Windows without the right to make links, snapshots hold the files themselves.
        for snapshot in self._snapshots():
            path = snapshot / file.path
            if is_file(path):
                yield path.resolve()

    def record_at(self, path: Path) -> FileRecord | None:
        """Of a file that was read for the listing, and is as it was then."""
        return self._readings.at(path)

    def listing(self, revision: str | None = None) -> Listing:
        """The files of a revision (default: the one that the manifest names), whose digests are the blobs' names."""
        commit = self._commit(revision or self._source.revision)
        snapshot = self.folder / "snapshots" / commit
        try:
            files = [
                self._file(path.relative_to(snapshot).as_posix(), path)
                for path in (sorted(snapshot.rglob("*")) if commit else ())
                if path.is_file() and is_fetched(path.name)
            ]
        except OSError as error:
            raise self._lacks(f"a file ({error.strerror or error})", snapshot) from error
        if not files:
            raise self._lacks("that revision", snapshot)
        return Listing(self.label, commit, tuple(files))

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> FolderPiece:
        """A part of a file, where it could not be linked."""
        path = next(self.paths_of(file), None)
        if path is None:
            raise self._lacks(file.path, self.folder)
        return FolderPiece(path, start, stop, file.size, file.sha256 or file.git_id)

    def close(self) -> None:
        """Nothing is held open."""

    def _file(self, path: str, found: Path) -> RemoteFile:
        """By the digest that its blob is called by; without links there are no blobs, and it is read."""
        blob = found.resolve()
        digest = blob.name if _DIGEST.fullmatch(blob.name) else self._readings.read(blob).sha256
        sha256, git_id = (digest, "") if len(digest) == 64 else ("", digest)
        return RemoteFile(path, blob.stat().st_size, sha256, git_id)

    def _lacks(self, what: str, path: Path) -> ModelError:
        return ModelError(
            ErrorCode.NOT_FOUND,
            "the hub's cache on this machine does not have the model",
            path=path,
            reason=f"{what} is not in it",
            fix="fetch the model while there is a network: `wan models ensure`",
        )

    def _commit(self, revision: str) -> str:
        if _COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.folder / "refs" / revision).read_text("ascii").strip()
        except (OSError, ValueError):
            return ""
        return commit if _COMMIT.fullmatch(commit) else ""

    def _snapshots(self) -> list[Path]:
        try:
            return sorted(path for path in (self.folder / "snapshots").iterdir() if path.is_dir())
        except OSError:
            return []
