"""Sensitive models: encrypted where they lie, and decrypted for a process that uses them, until it ends.

A file ``PATH`` of the model lies in its folder as ``PATH.age``. `.sealed.json` says of each what it is when it is
decrypted, and `.verified.json`, as in every model's folder, what it is as it lies there: so whatever measures, verifies
or removes folders needs no key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.installed import ModelState, ModelStatus, Verified, bytes_fetched, look_at
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.layout import ModelResolver, free_bytes, no_space
from wan_fixes.models.listing import Listing, RemoteFile
from wan_fixes.models.names import problem_with_path
from wan_fixes.models.private_folder import PrivateFolders, remove
from wan_fixes.models.publishing import disk_errors, publish
from wan_fixes.models.records import FileRecord, matching_record, record_of
from wan_fixes.models.sealing import SUFFIX, seal, unseal
from wan_fixes.models.target import Target

SEALED_NAME: Final = ".sealed.json"
_FORMAT: Final = 1

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class SealedFile:
    """A file of the model as it is decrypted (`plain`), and as it lies there (`sealed`)."""

    plain: FileRecord
    sealed: FileRecord


class SealedModel:
    """One sensitive model. Whoever calls `prepare` or `publish` has the model's lock.

    Parameters
    ----------
    part_bytes:
        As `Downloader` takes it.
    """

    def __init__(self, target: Target, resolver: ModelResolver, part_bytes: int) -> None:
        self._target = target
        self._private = PrivateFolders(resolver)
        self._part_bytes = part_bytes

    def look(self, listing: Listing | None) -> ModelStatus:
        """What is there of it, by names and sizes. `listing` is what it should be when it is decrypted, if known."""
        name, folder, partial = self._target.name, self._target.folder, self._target.partial
        seals = read_seals(folder)
        if listing is None and (seals or not folder.is_dir()):
            return look_at(name, folder, partial, None)
        if listing is None:
            return ModelStatus(str(name), ModelState.PARTIAL, folder)
        if _is_sealed(folder) and all(_is_of(seals.get(file.path), file) for file in listing.files):
            return look_at(name, folder, partial, None)
        there = {path: one for place in (folder, partial) for path, one in _unchanged(place).items()}
        left = tuple(file for file in listing.files if not _is_of(there.get(file.path), file))
        needed = sum(file.size for file in left) - bytes_fetched(partial, replace(listing, files=left))
        return ModelStatus(
            str(name),
            ModelState.PARTIAL if folder.is_dir() or partial.is_dir() else ModelState.NOT_PRESENT,
            folder,
            missing=tuple(file.path for file in left),
            bytes_needed=needed,
            bytes_there=listing.bytes - needed,
            revision=listing.revision,
            source=listing.source,
        )

    def prepare(self, listing: Listing) -> dict[str, FileRecord]:
        """Have what is there of its files at hand; returns a record of each that needs not be fetched.

        Files that were published before the model became sensitive go to where files are fetched to, so that they are
        sealed with the others. Raises ModelError.
        """
        self._take_back()
        return {path: place.file.plain for path, place in self._sealed(listing).items()}

    def publish(
        self,
        listing: Listing,
        fetched: Mapping[str, FileRecord],
        key: str,
        on_progress: OnProgress = lambda _: None,
    ) -> None:
        """Seal what was fetched and let it take its place, with what was sealed before; nothing decrypted stays.

        After a kill the next call goes on with the next file. Raises ModelError; the model counts as complete when
        this returns, and never before.
        """
        partial = self._target.partial
        there = self._sealed(listing)
        with disk_errors(partial):
            for path in there:
                (partial / path).unlink(missing_ok=True)
        left = [file.path for file in listing.files if file.path not in there]
        lacking = [path for path in left if path not in fetched]
        if lacking:
            raise _incomplete(partial, f"{lacking[0]} was not fetched")
        report = _Report(self._target, sum(fetched[path].size for path in left), on_progress)
        for path in left:
            sealed_path = partial / f"{path}{SUFFIX}"
            seal(partial / path, sealed_path, key, report.of(path))
            with disk_errors(partial):
                one = SealedFile(replace(fetched[path], parts=()), record_of(sealed_path, self._part_bytes))
                there[path] = _Place(one, partial)
                _write_seals(partial, there)
                (partial / path).unlink()
        self._move(listing, there)

    def open(
        self, listing: Listing | None, key: str, *, margin: int = 0, on_progress: OnProgress = lambda _: None
    ) -> Path:
        """A folder with the decrypted files, which this process alone has, until it ends. Once opened, it is that one.

        Parameters
        ----------
        listing:
            What each file must be when it is decrypted; where that is not known, what it was when it was sealed.
        margin:
            Bytes that stay free on the disk.

        Raises ModelError: NO_KEY where the key does not open it, CHECKSUM_FAIL where a file is not what it should be.
        """
        target = self._target
        seals = read_seals(target.folder)
        wanted = _wanted(seals, listing, target.folder)
        state = frozenset((path, seals[path].sealed.sha256) for path in wanted)
        with _opening:
            there = _opened.get(target.folder)
            if there is not None and there[0] == state and there[1].is_dir():
                return there[1]
            self._private.sweep()
            private = self._private.make()
            try:
                needed = sum(file.size for file in wanted.values())
                if needed > free_bytes(private) - margin:
                    raise no_space(private, needed, margin)
                folder = private / target.name.folder_name
                report = _Report(target, sum(seals[path].sealed.size for path in wanted), on_progress)
                for path, file in wanted.items():
                    sealed_path = target.folder / f"{path}{SUFFIX}"
                    unseal(sealed_path, folder / path, key, report.of(path), self._checked_against(file, sealed_path))
            except BaseException:  # Ctrl-C too must leave nothing that was decrypted
                remove(private)
                raise
            _opened[target.folder] = state, folder
            return folder

    # Inside

    def _sealed(self, listing: Listing) -> dict[str, _Place]:
        """What is sealed already of the wanted files and is as it was; what is not known of one is read."""
        folders = (self._target.folder, self._target.partial)
        verified = Verified.read(self._target.folder)
        wrong = {} if verified is None else verified.wrong
        notes = [read_seals(folder) for folder in folders]
        found = {}
        for file in listing.files:
            for one, folder in ((note.get(file.path), folder) for note in notes for folder in folders):
                if one is None or file.path in found or not one.plain.is_of(file):
                    continue
                path = f"{file.path}{SUFFIX}"
                record: FileRecord | None = one.sealed
                if path in wrong or not one.sealed.is_as(folder / path):
                    known = RemoteFile(path, one.sealed.size, one.sealed.sha256)
                    record = matching_record(folder / path, known, self._part_bytes, one.sealed)
                if record is not None:
                    found[file.path] = _Place(replace(one, sealed=record), folder)
        return found

    def _take_back(self) -> None:
        """Move files that lie there as they were fetched, and have a record of ours, to where they were fetched to."""
        folder, partial = self._target.folder, self._target.partial
        verified = Verified.read(folder)
        if verified is None or _is_sealed(folder):
            return
        with disk_errors(partial):
            for path in verified.files:
                if (folder / path).is_file() and not (partial / path).exists():
                    (partial / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).replace(partial / path)

    def _move(self, listing: Listing, there: Mapping[str, _Place]) -> None:
        """Let what is sealed take the model's place."""
        folder, partial = self._target.folder, self._target.partial
        moved, stay = (
            {f"{path}{SUFFIX}": place.file.sealed for path, place in there.items() if place.folder == at}
            for at in (partial, folder)
        )
        home, records = (partial, moved) if moved else (folder, stay)
        _write_seals(home, there)
        with disk_errors(home):
            records[SEALED_NAME] = record_of(home / SEALED_NAME, self._part_bytes)
        publish(self._target.name, listing, partial, folder, moved, stay)

    def _checked_against(self, file: RemoteFile, sealed_path: Path) -> Callable[[Path], None]:
        def check(path: Path) -> None:
            if matching_record(path, file, self._part_bytes) is None:
                raise ModelError(
                    ErrorCode.CHECKSUM_FAIL,
                    "a sealed file is not what it should be",
                    path=sealed_path,
                    reason="it opens, and holds something else than this file of the model",
                    fix="mend it: `wan models repair`",
                )

        return check


@dataclass(frozen=True)
class _Place:
    """A sealed file, and the folder (the model's, or where it is on its way) that it is in."""

    file: SealedFile
    folder: Path


class _Report:
    """Tells how far the work on all files is."""

    def __init__(self, target: Target, total: int, on_progress: OnProgress) -> None:
        self._name = str(target.name)
        self._total = total
        self._on_progress = on_progress
        self._done = 0

    def of(self, path: str) -> Callable[[int], None]:
        def came(count: int) -> None:
            self._done += count
            self._on_progress(Progress(self._name, self._done, self._total, path))

        return came


def read_seals(folder: Path) -> dict[str, SealedFile]:
    """What the sealed files of a folder are, by the paths that they have when they are decrypted; {} where none are."""
    content: Any = read_json(folder / SEALED_NAME)
    try:
        if content["format"] != _FORMAT or any(map(problem_with_path, content["files"])):
            return {}
        return {
            path: SealedFile(FileRecord.from_json(entry["plain"]), FileRecord.from_json(entry["sealed"]))
            for path, entry in content["files"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _write_seals(folder: Path, there: Mapping[str, _Place]) -> None:
    files = {
        path: {"plain": place.file.plain.as_json(), "sealed": place.file.sealed.as_json()}
        for path, place in there.items()
    }
    write_json(folder / SEALED_NAME, {"format": _FORMAT, "files": files})


def _is_sealed(folder: Path) -> bool:
    """Whether the model that was published there is sealed."""
    verified = Verified.read(folder)
    return verified is not None and SEALED_NAME in verified.files


def _is_of(one: SealedFile | None, file: RemoteFile) -> bool:
    return one is not None and one.plain.is_of(file)


def _unchanged(folder: Path) -> dict[str, SealedFile]:
    seals = read_seals(folder)
    return {path: one for path, one in seals.items() if one.sealed.is_as(folder / f"{path}{SUFFIX}")}


def _wanted(seals: Mapping[str, SealedFile], listing: Listing | None, folder: Path) -> dict[str, RemoteFile]:
    """What each file must be when it is decrypted: as the listing says, else as it was when it was sealed."""
    if not seals:
        raise _incomplete(folder, f"there is no sound {SEALED_NAME}")
    known = {path: RemoteFile(path, one.plain.size, one.plain.sha256) for path, one in seals.items()}
    if listing is None:
        return known
    for file in listing.files:
        if not _is_of(seals.get(file.path), file):
            raise _incomplete(folder, f"{file.path} is not there, or is of another revision")
    return {file.path: file if file.sha256 or file.git_id else known[file.path] for file in listing.files}


def _incomplete(folder: Path, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.MISSING_FILES,
        "the sealed model is not complete",
        path=folder,
        reason=reason,
        fix="fetch it: `wan models ensure`",
    )


# What this process has opened: by the folder of the sealed model, which state of it, and where.
_opened: dict[Path, tuple[frozenset[tuple[str, str]], Path]] = {}
_opening = threading.Lock()
