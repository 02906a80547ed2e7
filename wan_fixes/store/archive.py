"""Caches in one file, for another machine: an uncompressed tar of entries, of which nothing is believed on import.

Members are regular files named `STORE/KEY.safetensors`, where `STORE` is the store's folder within the cache folder,
and hold an entry as it lies on disk; behind those of a store come its lists of samples, `STORE/manifests/NAME.json`,
by which it is trained on where its sources are not. Reading takes one header of 512 bytes after another, with its own
rules and without `tarfile`'s extraction: what is no such member is passed over and named.
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
from wan_fixes.store.layout import KEY, MANIFESTS, SUFFIX
from wan_fixes.store.manifest import MANIFEST_SUFFIX, from_elsewhere, is_identity
from wan_fixes.store.payload import CHUNK_BYTES, read_header
from wan_fixes.store.samples import SampleStore

MAX_STORES = 64
"""More than any training has; each takes a folder and an index."""
MAX_NAME = 100
"""Bytes of a name in a tar header."""
MAX_LIST_BYTES = 1 << 28
"""Of a list of samples, which is read as a whole: 100,000 take some 20 MB."""

_BLOCK = tarfile.BLOCKSIZE
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# Names that Windows takes for devices, in any folder (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)

Progress = Callable[[int], None]
"""Called with how many bytes are done."""


@dataclass
class ExportResult:
    """How many entries and lists of samples were written, their bytes, and the entries that were left out."""

    exported: int = 0
    lists: int = 0
    bytes: int = 0
    refused: list[EntryError] = field(default_factory=list)


@dataclass
class ImportResult:
    """What was taken in, what was there already, and what of the archive was refused and why.

    imported, present:
        Entries.
    lists:
        Lists of samples.
    """

    imported: int = 0
    present: int = 0
    lists: int = 0
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
                for identity, manifest in store.manifests():
                    data = manifest.to_bytes()
                    file.write(_header(store, f"{name}/" if name else "", f"{MANIFESTS}/{identity}.json", len(data)))
                    file.write(data + bytes(-len(data) % _BLOCK))
                    result.lists += 1
                    result.bytes += len(data)
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
    folder = f"{name}/" if name else ""
    _header(store, folder, f"{key}{SUFFIX}", 0)  # before anything is read
    try:
        entry, header = store.open(key)
    except FileNotFoundError:
        return  # removed meanwhile; it is no entry any more
    except EntryError as error:
        result.refused.append(error)
        return
    with entry:
        file.write(_header(store, folder, f"{key}{SUFFIX}", header.file_bytes))
        while chunk := entry.read(CHUNK_BYTES):
            file.write(chunk)
    file.write(bytes(-header.file_bytes % _BLOCK))
    result.exported += 1
    result.bytes += header.file_bytes


def _header(store: SampleStore, folder: str, name: str, size: int) -> bytes:
    """The header of a member. Raises UserError for a name that import would refuse."""
    info = tarfile.TarInfo(folder + name)
    if not (_place(info.name) or _list_place(info.name)) or len(info.name) > MAX_NAME:
        raise UserError(
            "the cache cannot be exported",
            path=store.root,
            reason=f"an archive cannot carry the name {folder[:-1]!r}",
            fix="name the cache folder itself, and not one above it",
        )
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


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
    listed = _list_place(member.name)
    if listed is not None:
        _take_list(member, *listed, stores, open_store, result)
        return
    place = _place(member.name)
    if place is None:
        raise EntryError("", reason="its name is not that of an entry")
    name, key = place
    # First where it lies: what is no entry is never written, however large.
    read_header(_Part(member.file, member.start, member.size), Path(member.name), key, member.size)  # type: ignore[arg-type]
    store = _store_of(name, stores, open_store)
    if store.contains(key):
        result.present += 1
        return
    store.adopt(key, member.chunks(), member.size)
    result.imported += 1


def _take_list(
    member: _Member,
    name: str,
    identity: str,
    stores: dict[str, SampleStore],
    open_store: Callable[[str], SampleStore],
    result: ImportResult,
) -> None:
    """What is known here of a sample stays; the lists have its entries together."""
    if member.size > MAX_LIST_BYTES:
        raise EntryError("", reason=f"it is larger than {MAX_LIST_BYTES >> 20} MiB: no list of samples is")
    try:
        manifest = from_elsewhere(b"".join(member.chunks()))
    except ValueError as error:
        raise EntryError("", reason=str(error)) from error
    store = _store_of(name, stores, open_store)
    known = store.read_manifest(identity)
    store.write_manifest(identity, manifest if known is None else known.joined(manifest))
    result.lists += 1


def _store_of(name: str, stores: dict[str, SampleStore], open_store: Callable[[str], SampleStore]) -> SampleStore:
    if name not in stores:
        if len(stores) == MAX_STORES:
            raise EntryError("", reason=f"the archive names more than {MAX_STORES} caches")
        stores[name] = open_store(name)
    return stores[name]


def _place(name: str) -> tuple[str, str] | None:
    """Store and key that a member's name stands for, or None where it is not one of ours."""
    *folders, file = name.split("/")
    key = file.removesuffix(SUFFIX)
    if file != key + SUFFIX or not KEY.fullmatch(key) or not _are_folders(folders):
        return None
    return "/".join(folders), key


def _list_place(name: str) -> tuple[str, str] | None:
    """Store and identity that a member's name stands for, or None where it is no list of samples."""
    *folders, file = name.split("/")
    identity = file.removesuffix(MANIFEST_SUFFIX)
    if file != identity + MANIFEST_SUFFIX or not is_identity(identity):
        return None
    if folders[-1:] != [MANIFESTS] or not _are_folders(folders):
        return None
    return "/".join(folders[:-1]), identity


def _are_folders(names: list[str]) -> bool:
    return all(_FOLDER.fullmatch(name) and not _DEVICE.fullmatch(name) for name in names)


def _refusal(path: Path, name: str, reason: str) -> EntryError:
    return EntryError(
        "a part of the archive is refused",
        path=path,
        reason=f"{name!r}: {reason}",
        fix="nothing of it was taken in; export it again if you miss it",
        module="store",
    )
