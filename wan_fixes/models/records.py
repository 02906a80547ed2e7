"""What is remembered of a file that was verified: enough to see at a glance that it is still the same."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.stopping import check_stop

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when its digest was taken.

    Attributes
    ----------
    size, mtime_ns:
        Of the file: while they are the same, so is it.
    sha256:
        Of its content.
    git_id:
        Git's id of it, where the source named it by that; else "".
    part_bytes, parts:
        The digest (xxh3_128) of each part of that size, so that a spoilt part can be told and fetched anew by itself.
    """

    size: int
    mtime_ns: int
    sha256: str
    git_id: str
    part_bytes: int
    parts: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, **digests: Any) -> FileRecord:
        """With the size and time that the file has."""
        state = path.stat()
        return cls(state.st_size, state.st_mtime_ns, **digests)

    def is_of(self, file: RemoteFile) -> bool:
        """Whether it has the digest that the source says of a file; where it says none, no other is known."""
        if self.size != file.size:
            return False
        return self.sha256 == file.sha256 if file.sha256 else file.git_id in ("", self.git_id)

    def is_as(self, path: Path) -> bool:
        """Whether the file has this size and time; nothing is read."""
        try:
            state = path.stat()
        except OSError:
            return False
        return (state.st_size, state.st_mtime_ns) == (self.size, self.mtime_ns)

    def as_json(self) -> dict[str, Any]:
        """For a file of ours."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> FileRecord:
        """What `as_json` wrote. Raises ValueError for anything else."""
        try:
            record = cls(**{**content, "parts": tuple(content["parts"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"it is no record: {error!r}") from error
        numbers = (record.size, record.mtime_ns, record.part_bytes)
        texts = (record.sha256, record.git_id, *record.parts)
        if not all(type(number) is int for number in numbers) or not all(type(text) is str for text in texts):
            raise ValueError("it is no record")
        return record


def record_of(
    path: Path,
    part_bytes: int,
    *,
    with_git_id: bool = False,
    on_bytes: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> FileRecord:
    """Read a file and take its digests. Raises OSError, and ModelError once `stop` is set."""
    before = path.stat()
    sha256, git_id = hashlib.sha256(), git_hasher(before.st_size) if with_git_id else None
    parts = []
    with path.open("rb") as file:
        while True:
            part, left = xxhash.xxh3_128(), part_bytes
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                check_stop(stop)
                left -= len(chunk)
                on_bytes(len(chunk))
                sha256.update(chunk)
                part.update(chunk)
                if git_id is not None:
                    git_id.update(chunk)
            if left < part_bytes:
                parts.append(part.hexdigest())
            if left:
                break
    return FileRecord(
        before.st_size,
        before.st_mtime_ns,
        sha256.hexdigest(),
        "" if git_id is None else git_id.hexdigest(),
        part_bytes,
        tuple(parts),
    )


def matching_record(
    path: Path,
    file: RemoteFile,
    part_bytes: int,
    known: FileRecord | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> FileRecord | None:
    """Read a file and take its digests; None unless it is there and what its source has.

    With a `known` record of that content only the digest of the whole is taken, which is quicker. Where the source
    says no digest, the known one must be right. Raises ModelError once `stop` is set.
    """
    sha256 = file.sha256 or ("" if file.git_id or known is None else known.sha256)
    try:
        before = path.stat()
        if before.st_size != file.size:
            return None
        if known is not None and known.sha256 == sha256 != "":
            found = sha256_of(path, on_bytes, stop)
            return replace(known, mtime_ns=before.st_mtime_ns) if found == sha256 else None
        record = record_of(path, part_bytes, with_git_id=not sha256, on_bytes=on_bytes, stop=stop)
    except OSError:
        return None
    is_right = record.sha256 == sha256 if sha256 else record.git_id == file.git_id != ""
    return record if is_right else None


def sha256_of(path: Path, on_bytes: Callable[[int], None] = lambda _: None, stop: threading.Event | None = None) -> str:
    """The digest of a file, in hex digits. Raises OSError, and ModelError once `stop` is set."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            check_stop(stop)
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def git_hasher(size: int) -> Any:
    """A digest that becomes git's id of a file of that size: to recognise content, not for security.

    https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    """
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
