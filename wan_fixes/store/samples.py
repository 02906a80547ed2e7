"""The store: entries by key, verified when read, written whole, found again after a kill."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from wan_fixes.errors import CriticalError, EntryError, UserError
from wan_fixes.store.atomic import clean_temporary, disk_error, write_atomic
from wan_fixes.store.index import Discarded, Index, Row, Usage
from wan_fixes.store.layout import KEY, SUFFIX, Layout, other_versions
from wan_fixes.store.making import Making
from wan_fixes.store.manifest import Manifest, manifest_files, read_manifest, write_manifest
from wan_fixes.store.on_disk import discarded_on_disk, problems_on_disk, row_of, rows_on_disk
from wan_fixes.store.payload import Header, encode, open_entry, read_header, read_item, verify_data
from wan_fixes.store.values import values_from_json

logger = logging.getLogger(__name__)

_USES_PER_WRITE = 256


@dataclass(frozen=True)
class StoreStats:
    """What a store holds (from the index) and how it served this process.

    entries, bytes:
        Entries, and the size of their files.
    corrupt:
        Entries discarded since the store exists, by any process.
    hits, misses:
        Entries delivered by `get`; entries that `get` or `contains` did not find. This process only.
    mean_access_seconds:
        Mean duration of a delivery; 0 before the first.
    """

    entries: int
    bytes: int
    corrupt: int
    hits: int
    misses: int
    mean_access_seconds: float


class SampleStore:
    """Named tensors and plain values by key, one safetensors file per entry.

    All of it lies in a folder of this format version, `root/v1`; folders of other versions are named in `notices` and
    left alone. Threads and processes may share a store. The files are the truth: an entry whose row was lost is found
    by its name.

    A checksum is verified on the first read of an entry in this process, and again when its size, time or file id has
    changed; always with `verify_always`.
    """

    def __init__(self, root: str | os.PathLike[str], *, verify_always: bool = False) -> None:
        self.root = Path(root)
        self.verify_always = verify_always
        self._layout = Layout(self.root)
        self.folder = self._layout.folder
        try:
            self._layout.make_folders()
            others = other_versions(self.root)
        except OSError as error:
            raise UserError(
                "cache folder cannot be used",
                path=error.filename or self.root,
                reason=error.strerror or str(error),
                fix="choose a cache folder that can be written",
            ) from error
        for notice in others:
            logger.warning("%s", notice)
        clean_temporary(self._layout.temporary)
        self._index = Index(
            self._layout.index, partial(rows_on_disk, self._layout), partial(discarded_on_disk, self._layout)
        )
        self._others = others
        self._making = Making(self._layout.making)
        self._lock = threading.Lock()
        self._verified: dict[str, int] = {}
        self._used: dict[str, float] = {}
        self._hits = self._misses = 0
        #: How many entries this object took out because they were not sound.
        self.discarded = 0
        self._seconds = 0.0

    @property
    def damages(self) -> list[EntryError]:
        """What was wrong with the index when it was opened, and is mended."""
        return list(self._index.database.notices)

    @property
    def notices(self) -> list[EntryError]:
        """What was found and left alone or set aside: other format versions, damaged indexes."""
        return [*self._others, *self.damages]

    def get(self, key: str, names: Iterable[str] | None = None) -> dict[str, Any]:
        """The entry's items, or those of `names`: tensors on the CPU, plain values as they were put.

        Raises KeyError when there is no such entry, EntryError when it is damaged or foreign (then `discard` it and
        `put` it anew).
        """
        started = time.perf_counter()
        path = self._path(key)
        try:
            file = open_entry(path)
        except FileNotFoundError:
            self._missed(key, had_row=bool(self._index.find([key])))
            raise KeyError(key) from None
        with file:
            header = read_header(file, path, key)
            state = os.fstat(file.fileno())
            fingerprint = hash((state.st_size, state.st_mtime_ns, state.st_ino))
            verify = self.verify_always or self._verified.get(key) != fingerprint
            item = read_item(file, path, header, names, verify=verify)
        if verify:
            self._learn(header, state)
            self._verified[key] = fingerprint
        with self._lock:
            self._hits += 1
            self._seconds += time.perf_counter() - started
            self._used[key] = time.time()
            used = self._take_used(_USES_PER_WRITE)
        if used:
            self._if_possible(self._index.touch, used)
        return item

    def put(self, key: str, item: Mapping[str, Any]) -> int:
        """Write an entry, replacing what was there; returns its bytes. When it returns, a kill no longer loses it.

        Raises ValueError for None, NaN and infinity, TypeError for what an entry cannot hold (both name the item),
        CriticalError when the disk is full.
        """
        path = self._path(key)
        entry = encode(key, item)
        try:
            self._clear_way(path)
        except OSError as error:
            raise disk_error(error, path, entry.file_bytes) from error
        state = write_atomic(path, entry.parts, temporary_folder=self._layout.temporary)
        self._remember(row_of(path, state, entry.checksum, entry.values_json), path)
        return entry.file_bytes

    def adopt(self, key: str, parts: Iterable[bytes], size: int) -> None:
        """Take in an entry as another store wrote it: `size` bytes in parts, which are never all in memory.

        Header, checksums and key are verified before the entry takes its name. Raises EntryError when they are not
        sound, CriticalError when the disk is full; nothing is changed then.
        """
        path = self._path(key)
        headers: list[Header] = []

        def check(temporary: Path) -> None:
            with open_entry(temporary) as file:
                headers.append(read_header(file, temporary, key))
                verify_data(file, temporary, headers[0])

        try:
            self._clear_way(path)
        except OSError as error:
            raise disk_error(error, path, size) from error
        state = write_atomic(path, parts, temporary_folder=self._layout.temporary, size=size, check=check)
        self._remember(row_of(path, state, headers[0].checksum, headers[0].values_json), path)

    def open(self, key: str) -> tuple[BinaryIO, Header]:
        """The entry's file, verified, at its beginning, and its header. The caller closes it.

        Raises FileNotFoundError when there is none, EntryError when it is damaged or foreign.
        """
        path = self._path(key)
        file = open_entry(path)
        try:
            header = read_header(file, path, key)
            verify_data(file, path, header)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file, header

    def remove(self, keys: Iterable[str]) -> int:
        """Delete entries; returns the bytes freed. No link is followed: what is not a file in a folder of ours stays.

        The file goes first, then its row unless there is a file again: other processes may read and write meanwhile,
        and a kill between the two leaves a row that the next look-up removes.
        """
        freed = 0
        gone: list[str] = []
        for key in keys:
            path = self._path(key)
            try:
                state = os.lstat(path)
                if not (stat.S_ISREG(state.st_mode) and stat.S_ISDIR(os.lstat(path.parent).st_mode)):
                    continue
                path.unlink()
                freed += state.st_size
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:  # open in another program, on Windows
                logger.warning("%s cannot be deleted: %s", path, error)
                continue
            self._verified.pop(key, None)
            gone.append(key)
        self._if_possible(self._index.remove_where, gone, lambda key: not os.path.lexists(self._path(key)))
        return freed

    @contextlib.contextmanager
    def making(self, key: str, patience: float = 0.0) -> Iterator[bool]:
        """Whether the caller is to make the entry; no other thread or process does until the end of the block.

        False when it is there by now, or when another one is still making it after `patience` seconds.
        """
        with self._making.hold(key, patience) as is_ours:
            yield is_ours and not (self._path(key).exists() and self.contains(key))

    def contains(self, key: str) -> bool:
        """Whether the entry is there, as its row or else its header tells. One that is not sound is discarded."""
        return key in self.present([key])

    def present(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of `keys` whose entries are there, with their plain values as JSON; `values_from_json` reads those.

        Their rows tell, or else their headers. One that is not sound is discarded.
        """
        wanted = list(dict.fromkeys(keys))
        rows = self._index.find(wanted)
        there = {key: row.values_json for key, row in rows.items() if self._is_as_its_row(row)}
        for key in wanted:
            if key not in there:
                values_json = self._look_on_disk(key)
                if values_json is None:
                    self._missed(key, had_row=key in rows)
                else:
                    there[key] = values_json
        return there

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """The bytes of the files of those of `keys` that have one. Nothing is opened."""
        return self._layout.sizes(keys)

    def folder_times(self, keys: Iterable[str]) -> dict[str, int]:
        """When an entry last came or went, by the first two digits of `keys` (ns); not where that was just now."""
        return self._layout.times(keys)

    def read_manifest(self, identity: str) -> Manifest | None:
        """The list of samples that was written under this identity, or None where there is no sound one."""
        return read_manifest(self._layout.manifests, identity)

    def manifests(self) -> Iterator[tuple[str, Manifest]]:
        """The identity of each list of samples, and the list."""
        for path in manifest_files(self._layout.manifests):
            found = self.read_manifest(path.stem)
            if found is not None:
                yield path.stem, found

    def write_manifest(self, identity: str, manifest: Manifest) -> None:
        """Write a list of samples in place of the last one. Raises CriticalError when the disk is full."""
        write_manifest(self._layout.manifests, identity, manifest.to_bytes(), self._layout.temporary)

    def _is_as_its_row(self, row: Row) -> bool:
        try:
            state = os.lstat(f"{self._layout.entries}{os.sep}{row.key[:2]}{os.sep}{row.key}{SUFFIX}")
        except OSError:
            return False
        return stat.S_ISREG(state.st_mode) and state.st_size == row.size

    def small_values(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The plain values of those entries that are there, from the index alone; no tensor is read.

        An entry that lost its row is looked up on disk and gets one.
        """
        wanted = list(dict.fromkeys(keys))
        rows = self._index.find(wanted)
        found: dict[str, dict[str, Any]] = {}
        for key in wanted:
            values_json = rows[key].values_json if key in rows else self._look_on_disk(key)
            if values_json is not None:
                found[key] = values_from_json(values_json)
        return found

    def _look_on_disk(self, key: str) -> str | None:
        """The plain values of an entry whose row does not tell, which is mended; None where there is no sound one."""
        path = self._path(key)
        try:
            with open_entry(path) as file:
                header = read_header(file, path, key)
                self._learn(header, os.fstat(file.fileno()))
        except FileNotFoundError:
            return None
        except EntryError as error:
            self.discard(key, error.reason)
            return None
        return header.values_json

    def note_needed(self, owner: str, concepts: Mapping[str, str], *, replace: bool) -> None:
        """Remember which keys `owner` needs, each with the name of its concept; all of its count as used now.

        With `replace` these are all, else they come to those noted before. Nothing is read, and no entry need be there.
        """
        self._if_possible(partial(self._index.note_needed, replace=replace), owner, concepts, time.time())

    def usage(self, keys: Sequence[str] | None = None) -> list[Usage]:
        """Of each entry its bytes, when it was last used, and whether an owner needs it; least recently used first.

        Of all entries, or of at most 500 keys.
        """
        return [usage for usage in self._index.usage(keys) if KEY.fullmatch(usage.key)]

    def knows_needs(self) -> bool:
        """Whether any owner noted what it needs, since the index exists."""
        return self._index.knows_needs()

    @property
    def manifests_folder(self) -> Path:
        """Where the lists of samples lie."""
        return self._layout.manifests

    @property
    def quarantine_folder(self) -> Path:
        """Where the files of discarded entries lie."""
        return self._layout.quarantine

    def concepts(self) -> list[tuple[str, int, int]]:
        """Name, entries and bytes of each concept that entries are needed for; one of two concepts counts in both."""
        return self._index.concepts()

    def discard(self, key: str, reason: str) -> None:
        """Take an entry out: its file goes to the `quarantine` folder, its row away. Counted in `stats().corrupt`."""
        path = self._path(key)
        aside = self._layout.quarantine / f"{key}.{time.time_ns()}{SUFFIX}"
        try:
            path.replace(aside)
            name = aside.name
        except FileNotFoundError:
            name = ""
        except OSError as error:  # it stays, and the next write replaces it
            logger.warning("%s cannot be moved to quarantine: %s", path, error)
            name = ""
        self._verified.pop(key, None)
        with self._lock:
            self.discarded += 1
        self._index.discard(Discarded(key, name, reason.encode("utf-8", "backslashreplace").decode(), time.time()))
        logger.warning("cache entry %s was discarded: %s", path, reason)

    def verify(self, on_progress: Callable[[int], None] = lambda _: None) -> list[EntryError]:
        """Read every entry, compare every checksum; returns what is damaged, foreign or missing. Changes nothing.

        `on_progress` is called with how many files are done.
        """
        return problems_on_disk(self._layout, self.keys(), on_progress)

    def stats(self) -> StoreStats:
        """Totals of the store, and hits and misses of this process."""
        entries, size, corrupt = self._index.totals()
        with self._lock:
            mean = self._seconds / self._hits if self._hits else 0.0
            return StoreStats(entries, size, corrupt, self._hits, self._misses, mean)

    def keys(self) -> list[str]:
        """The keys of all indexed entries, sorted."""
        return [key for key in self._index.keys() if KEY.fullmatch(key)]  # noqa: SIM118 - a method, not a dict's

    def rebuild_index(self) -> None:
        """Make the index anew from the headers of the entries. A file without a sound header gets no row."""
        self._index.remake()

    def close(self) -> None:
        """Write what is pending and close the index; the next use opens it again."""
        with self._lock:
            used = self._take_used(1)
        if used:
            self._if_possible(self._index.touch, used)
        self._index.database.close()

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_store, (self.root, self.verify_always)

    def _path(self, key: str) -> Path:
        return self._layout.path_of(key)

    def key_at(self, path: Path) -> str | None:
        """The key of the entry that belongs at this path, or None where none does."""
        return self._layout.key_at(path)

    def _clear_way(self, path: Path) -> None:
        """Move away what is no folder or no file where an entry must go, so that it cannot block every later run."""
        if path.parent.exists() and not path.parent.is_dir():
            path.parent.replace(self._layout.quarantine / f"{path.parent.name}.{time.time_ns()}")
        if path.exists() and not path.is_file():
            self.discard(path.name.removesuffix(SUFFIX), "something that is not a file stands in its place")

    def _learn(self, header: Header, state: os.stat_result) -> None:
        """Mend the row of an entry whose file says otherwise: another process replaced it, or its row was lost."""
        path = self._path(header.key)
        row = row_of(path, state, header.checksum, header.values_json)
        known = self._index.find([header.key]).get(header.key)
        if known is None or (known.checksum, known.size, known.mtime_ns) != (row.checksum, row.size, row.mtime_ns):
            self._if_possible(self._remember, row, path)

    def _if_possible(self, write: Callable[..., None], *arguments: Any) -> None:
        """Write to the index. Reading goes on when that fails, on a full disk: the files are there."""
        try:
            write(*arguments)
        except CriticalError as error:
            logger.warning("%s", error)

    def _remember(self, row: Row, path: Path) -> None:
        """Write a row, unless another process has replaced the file meanwhile and so writes the row itself."""

        def still_true() -> bool:
            with contextlib.suppress(OSError):
                state = path.stat()
                return (state.st_size, state.st_mtime_ns) == (row.size, row.mtime_ns)
            return False

        self._index.put(row, still_true)

    def _missed(self, key: str, *, had_row: bool) -> None:
        if had_row:
            self._if_possible(self._index.remove, key)
        with self._lock:
            self._misses += 1

    def _take_used(self, at_least: int) -> dict[str, float]:
        if len(self._used) < at_least:
            return {}
        used, self._used = self._used, {}
        return used


def _open_store(root: Path, verify_always: bool) -> SampleStore:
    return SampleStore(root, verify_always=verify_always)
