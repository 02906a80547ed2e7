"""Caches in one file, for another machine: an uncompressed tar of entries, of which nothing is believed on import.

Members are regular files named `STORE/KEY.safetensors`, where `STORE` is the store's folder within the cache folder,
and hold an entry as it lies on disk. Reading takes one header of 512 bytes after another, with its own rules and
without `tarfile`'s extraction: what is no such member is passed over and named.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from wan_fixes.errors import EntryError, UserError
from wan_fixes.store.atomic import disk_error
from wan_fixes.store.layout import KEY, SUFFIX
from wan_fixes.store.payload import CHUNK_BYTES, read_header
from wan_fixes.store.samples import SampleStore

MAX_STORES = 64
"""More than any training has; each takes a folder and an index."""
MAX_NAME = 100
"""Bytes of a name in a tar header."""

_BLOCK = tarfile.BLOCKSIZE
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# Names that Windows takes for devices, in any folder (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)

Progress = Callable[[int], None]
"""Called with how many bytes are done."""


@dataclass
class ExportResult:
    """How many entries were written, their bytes, and the entries that were left out."""

    exported: int = 0
    bytes: int = 0
    refused: list[EntryError] = field(default_factory=list)


@dataclass
class ImportResult:
    """How many entries were taken in, how many were there already, and what of the archive was refused and why."""

    imported: int = 0
    present: int = 0
    refused: list[EntryError] = field(default_factory=list)


def export(
    stores: Mapping[str, SampleStore],
    path: Path,
    keys: Iterable[str] | None = None,
    on_progress: Progress = lambda _: None,
) -> ExportResult:
    """Write the entries of these stores, or those of `keys`, into one file, which takes its name when it is whole.

    `stores` are named by their folder within the cache folder, with `/` between its parts ("image/samples"). Each entry
    is verified; one that is not sound is left out and named.

    Raises UserError for a store whose name cannot be carried, CriticalError when the disk is full.
    """
    wanted = None if keys is None else set(keys)
    result = ExportResult()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            for name, store in stores.items():
                for key in store.keys():  # noqa: SIM118 - a method, not a dict's
                    if wanted is None or key in wanted:
                        _add(file, name, store, key, result)
                        on_progress(result.bytes)
            file.write(bytes(2 * _BLOCK))  # the end of a tar
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise disk_error(error, path, result.bytes, what="the archive cannot be written") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return result


def import_(
    path: Path, open_store: Callable[[str], SampleStore], on_progress: Progress = lambda _: None
) -> ImportResult:
    """Take in what an archive holds and the stores lack.

    Each member is verified (name, header, checksums, key) before it gets its place, written as `SampleStore.put` does.
    A kill loses what was in flight; the next import goes on.

    Parameters
    ----------
    open_store:
        Gives the store of a name such as "image/samples": relative, without `..`, links or devices. Asked once for each
        name, and only when there is a sound entry for it; the caller closes what it opened.

    Raises UserError when the file cannot be read or is no tar, CriticalError when the disk is full.
    """
    result = ImportResult()
    stores: dict[str, SampleStore] = {}
    try:
        with path.open("rb", buffering=0) as file:
            for member in _members(file, path, result):
                on_progress(member.start)
                try:
                    _take_in(member, stores, open_store, result)
                except EntryError as error:
                    result.refused.append(_refusal(path, member.name, error.reason))
            on_progress(file.seek(0, os.SEEK_END))
    except OSError as error:
        raise UserError(
            "the archive cannot be read",
            path=path,
            reason=error.strerror or str(error),
            fix="name a file that `wan cache export` wrote",
        ) from error
    return result


class _Part(io.RawIOBase):
    """A stretch of a file, read as if it were one itself."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = memoryview(buffer)[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(part)  # type: ignore[attr-defined]
        self._at += count
        return int(count)


@dataclass(frozen=True)
class _Member:
    """A regular member: its name, and where its bytes lie."""

    name: str
    file: BinaryIO
    start: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        part = _Part(self.file, self.start, self.size)
        while chunk := part.read(CHUNK_BYTES):
            yield chunk


def _add(file: BinaryIO, name: str, store: SampleStore, key: str, result: ExportResult) -> None:
    info = tarfile.TarInfo(f"{name}/{key}{SUFFIX}" if name else f"{key}{SUFFIX}")
    if _place(info.name) is None or len(info.name) > MAX_NAME:
        raise UserError(
            "the cache cannot be exported",
            path=store.root,
            reason=f"an archive cannot carry the name {name!r}",
            fix="name the cache folder itself, and not one above it",
        )
    try:
        entry, header = store.open(key)
    except FileNotFoundError:
        return  # removed meanwhile; it is no entry any more
    except EntryError as error:
        result.refused.append(error)
        return
    with entry:
        info.size = header.file_bytes
        file.write(info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict"))
        while chunk := entry.read(CHUNK_BYTES):
            file.write(chunk)
    file.write(bytes(-info.size % _BLOCK))
    result.exported += 1
    result.bytes += info.size


def _members(file: BinaryIO, path: Path, result: ImportResult) -> Iterator[_Member]:
    """The regular members, one after another. What else there is goes to `result.refused`."""
    end = file.seek(0, os.SEEK_END)
    at, is_first = 0, True
    while at < end:
        file.seek(at)
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):
            if end - at > tarfile.RECORDSIZE or any(file.read(end - at)):
                result.refused.append(_refusal(path, f"what lies behind byte {at}", "the archive ends before it"))
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            if is_first:
                raise UserError(
                    "the archive cannot be read",
                    path=path,
                    reason=f"it is no tar: {error}",
                    fix="name a file that `wan cache export` wrote",
                ) from error
            result.refused.append(_refusal(path, f"what begins at byte {at}", f"the archive is damaged: {error}"))
            return
        member = _Member(info.name, file, at + _BLOCK, info.size)
        if info.size < 0 or member.start + info.size > end:
            what = f"it should be {info.size} bytes long, and the archive ends after {end - member.start}"
            result.refused.append(_refusal(path, info.name, what))
            return
        if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield member
        else:
            result.refused.append(_refusal(path, info.name, "it is not a regular file"))
        at, is_first = member.start + info.size + -info.size % _BLOCK, False
    result.refused.append(_refusal(path, "its end", "the archive ends early: something may be missing"))


def _take_in(
    member: _Member,
    stores: dict[str, SampleStore],
    open_store: Callable[[str], SampleStore],
    result: ImportResult,
) -> None:
    place = _place(member.name)
    if place is None:
        raise EntryError("", reason="its name is not that of an entry")
    name, key = place
    # First where it lies: what is no entry is never written, however large.
    read_header(_Part(member.file, member.start, member.size), Path(member.name), key, member.size)  # type: ignore[arg-type]
    if name not in stores:
        if len(stores) == MAX_STORES:
            raise EntryError("", reason=f"the archive names more than {MAX_STORES} caches")
        stores[name] = open_store(name)
    if stores[name].contains(key):
        result.present += 1
        return
    stores[name].adopt(key, member.chunks(), member.size)
    result.imported += 1


def _place(name: str) -> tuple[str, str] | None:
    """Store and key that a member's name stands for, or None where it is not one of ours."""
    *folders, file = name.split("/")
    key = file.removesuffix(SUFFIX)
    if file != key + SUFFIX or not KEY.fullmatch(key):
        return None
    if not all(_FOLDER.fullmatch(folder) and not _DEVICE.fullmatch(folder) for folder in folders):
        return None
    return "/".join(folders), key


def _refusal(path: Path, name: str, reason: str) -> EntryError:
    return EntryError(
        "a part of the archive is refused",
        path=path,
        reason=f"{name!r}: {reason}",
        fix="nothing of it was taken in; export it again if you miss it",
        module="store",
    )
