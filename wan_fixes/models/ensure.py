"""Making sure that a model is there, complete and genuine, before anything is loaded."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from wan_fixes.models.download import CONNECTIONS, Downloader
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import (
    VERIFIED_NAME,
    ModelState,
    ModelStatus,
    Verified,
    bytes_fetched,
    incomplete,
    look_at,
)
from wan_fixes.models.layout import ModelResolver, free_bytes, no_space, not_writable
from wan_fixes.models.listing import Listing, RemoteFile, files_of_model
from wan_fixes.models.lock_file import LockFile
from wan_fixes.models.locks import LockManager
from wan_fixes.models.manifest import Manifest, load_manifest
from wan_fixes.models.names import ModelName, Wanted, parse_name
from wan_fixes.models.partial_file import PART_BYTES
from wan_fixes.models.records import FileRecord, matching_record
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.rate import RateLimiter
from wan_fixes.models.sources.source import Source
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.spec import ModelSpec, VariantSpec

logger = logging.getLogger(__name__)

OFFLINE_VARIABLES: Final = ("WAN_MODELS_OFFLINE", "HF_HUB_OFFLINE")
#: Bytes that stay free, for what else a training writes.
SAFETY_MARGIN: Final = 2_000_000_000
_NO: Final = ("", "0", "off", "no", "false")


@dataclass(frozen=True)
class Progress:
    """How far an `ensure` is: bytes of the model that are there, of all; and the file that came last."""

    name: str
    done: int
    total: int
    file: str


def is_offline() -> bool:
    """Whether the network must not be asked: what `WAN_MODELS_OFFLINE` says, else the hub's own `HF_HUB_OFFLINE`."""
    said = next((os.environ[name] for name in OFFLINE_VARIABLES if os.environ.get(name)), "")
    return said.lower() not in _NO


class ModelEnsurer:
    """Has models present, complete and genuine below one root.

    Parameters
    ----------
    manifest, resolver:
        Which models there are, and where they lie (default: as the environment says).
    connections, part_bytes, rate, retry:
        Of downloads (see `Downloader`).
    safety_margin:
        Bytes that stay free on the disk.
    make_sources:
        Makes the places to fetch from, in the order in which they are asked.
    """

    def __init__(
        self,
        manifest: Manifest | None = None,
        resolver: ModelResolver | None = None,
        *,
        connections: int = CONNECTIONS,
        part_bytes: int = PART_BYTES,
        rate: RateLimiter | None = None,
        retry: RetryPolicy | None = None,
        safety_margin: int = SAFETY_MARGIN,
        make_sources: Callable[[VariantSpec], list[Source]] | None = None,
    ) -> None:
        self.manifest = manifest or load_manifest()
        self.resolver = resolver or ModelResolver.default()
        self.resolver.check()
        self._locks = LockManager(self.resolver.locks)
        self._pins = LockFile(self.resolver.lock_file, self._locks)
        self._connections = connections
        self._part_bytes = part_bytes
        self._rate = rate
        self._retry = retry
        self._margin = safety_margin
        self._make_sources = make_sources or self._sources

    def ensure(
        self,
        model_id: str,
        variant: str | None = None,
        *,
        lock_timeout: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_wait: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> Path:
        """The folder of a model that is complete; it is fetched, or mended, where it is not.

        A complete model asks no server. Of several callers, in any process, one fetches and the others wait.

        Parameters
        ----------
        model_id:
            ``ID``, ``ID@VERSION`` or ``ID@VERSION#VARIANT``.
        lock_timeout:
            Seconds to wait for another process that works on it (None: as long as it takes).

        Raises
        ------
        ModelError
            With a code that says why it cannot be had. What came until then is kept.
        """
        spec, chosen, name = self._find(model_id, variant)
        if self._look(spec, chosen, name).state is ModelState.COMPLETE:
            return self.resolver.model_folder(spec, name)
        with self._locks.hold(name.folder_name, lock_timeout, on_wait):
            status = self._look(spec, chosen, name)  # another process may have fetched it meanwhile
            if status.state is not ModelState.COMPLETE:
                self._have(spec, chosen, name, status, on_progress, stop or threading.Event())
        return self.resolver.model_folder(spec, name)

    def status(self, model_id: str, variant: str | None = None) -> ModelStatus:
        """What is there of a model. Asks no server, and reads no file's content."""
        spec, chosen, name = self._find(model_id, variant)
        found = self._look(spec, chosen, name)
        if found.folder.is_dir() and self._locks.is_held(name.folder_name):
            return replace(found, state=ModelState.VERIFYING)
        return found

    def verify_integrity(
        self, model_id: str, variant: str | None = None, *, on_progress: Callable[[Progress], None] = lambda _: None
    ) -> ModelStatus:
        """Read all files of a model and compare their digests; what is right is remembered.

        Files whose digest is wrong are named in `ModelStatus.corrupt`. Nothing is changed, and no server is asked.
        """
        spec, chosen, name = self._find(model_id, variant)
        with self._locks.hold(name.folder_name):
            status = self._look(spec, chosen, name)
            listing = self._known_listing(spec, chosen, name)
            folder = self.resolver.model_folder(spec, name)
            verified = Verified.read(folder)
            if listing is None and verified is not None:
                listing = _listing_of(verified)
            if listing is None or not folder.is_dir():
                return status
            right, done = {}, 0
            for file in listing.files:
                record = matching_record(folder / file.path, file, self._part_bytes)
                if record is not None:
                    right[file.path] = record
                done += file.size
                on_progress(Progress(str(name), done, listing.bytes, file.path))
            missing = tuple(file.path for file in listing.files if not (folder / file.path).is_file())
            wrong = tuple(file.path for file in listing.files if file.path not in right and file.path not in missing)
            if not missing and not wrong:
                Verified.now(name, listing, right).write(folder)
                return self._look(spec, chosen, name)
        return incomplete(name, folder, listing, missing, wrong, verified_at=status.verified_at)

    # Inside

    def _find(self, model_id: str, variant: str | None) -> tuple[ModelSpec, VariantSpec, ModelName]:
        wanted = parse_name(model_id)
        spec, chosen = self.manifest.find(Wanted(wanted.model_id, wanted.version, variant or wanted.variant))
        return spec, chosen, spec.name(chosen.name)

    def _look(self, spec: ModelSpec, variant: VariantSpec, name: ModelName) -> ModelStatus:
        folder, partial = self.resolver.model_folder(spec, name), self.resolver.partial_folder(name)
        return look_at(name, folder, partial, self._known_listing(spec, variant, name))

    def _known_listing(self, spec: ModelSpec, variant: VariantSpec, name: ModelName) -> Listing | None:
        """What the model should be, without asking anybody; None where that is not known yet."""
        if variant.files and all(file.size is not None and file.sha256 for file in variant.files):
            files = tuple(RemoteFile(file.path, file.size or 0, file.sha256 or "") for file in variant.files)
            return files_of_model(spec, Listing(str(self.manifest.path), variant.hub.revision, files))
        return self._pins.get(name)

    def _have(
        self,
        spec: ModelSpec,
        variant: VariantSpec,
        name: ModelName,
        status: ModelStatus,
        on_progress: Callable[[Progress], None],
        stop: threading.Event,
    ) -> None:
        """Fetch what is missing, from the first source that has it, and publish it."""
        folder = self.resolver.model_folder(spec, name)
        listing = self._known_listing(spec, variant, name)
        right = {} if listing is None else self._right_files(folder, listing)
        if listing is not None and _is_all_of(right, listing):
            Verified.now(name, listing, right).write(folder)
            return
        if is_offline():
            raise self._offline(name, status)
        failures: list[tuple[str, ModelError]] = []
        for source in self._make_sources(variant):
            with contextlib.closing(source):
                try:
                    self._fetch_from(source, spec, variant, name, listing, right, on_progress, stop)
                    return
                except ModelError as error:
                    if error.code in (ErrorCode.NO_SPACE, ErrorCode.NOT_WRITABLE, ErrorCode.UNSAFE_PATH):
                        raise
                    failures.append((source.label, error))
        raise _all_failed(name, failures)

    def _right_files(self, folder: Path, listing: Listing) -> dict[str, FileRecord]:
        """Of the published files, those that are what they should be."""
        if not folder.is_dir():
            return {}
        verified = Verified.read(folder)
        right = {}
        for file in listing.files:
            record = None if verified is None else verified.files.get(file.path)
            is_known = record is not None and record.is_as(folder / file.path) and file.sha256 in ("", record.sha256)
            if not is_known:
                record = matching_record(folder / file.path, file, self._part_bytes)
            if record is not None:
                right[file.path] = record
        return right

    def _fetch_from(
        self,
        source: Source,
        spec: ModelSpec,
        variant: VariantSpec,
        name: ModelName,
        listing: Listing | None,
        right: dict[str, FileRecord],
        on_progress: Callable[[Progress], None],
        stop: threading.Event,
    ) -> None:
        folder, partial = self.resolver.model_folder(spec, name), self.resolver.partial_folder(name)
        if listing is None:
            listing = agreed(variant, files_of_model(spec, source.listing()))
            self._pins.put(name, listing)
            right = self._right_files(folder, listing)
        needed = Listing(listing.source, listing.revision, tuple(f for f in listing.files if f.path not in right))
        to_come = needed.bytes - bytes_fetched(partial, needed)
        if to_come > free_bytes(partial) - self._margin:
            raise no_space(self.resolver.root, to_come, self._margin)
        self.resolver.make(partial)
        done = listing.bytes - to_come
        lock = threading.Lock()

        def came(count: int, file: str) -> None:
            nonlocal done
            with lock:
                done = min(listing.bytes, done + count)
                on_progress(Progress(str(name), done, listing.bytes, file))

        downloader = Downloader(
            source,
            connections=self._connections,
            part_bytes=self._part_bytes,
            rate=self._rate,
            retry=self._retry,
            on_bytes=came,
            stop=stop,
        )
        records = downloader.fetch(needed, partial)
        if records:
            with _disk_errors(folder):
                _publish(partial, folder, records)
        Verified.now(name, listing, _as_published(folder, right | records)).write(folder)

    def _sources(self, variant: VariantSpec) -> list[Source]:
        return [HubStore(variant.hub, retry=self._retry)]

    def _offline(self, name: ModelName, status: ModelStatus) -> ModelError:
        lacking = ", ".join((*status.missing, *status.corrupt)[:5]) or "all of it"
        return ModelError(
            ErrorCode.OFFLINE,
            f"{name} is not complete",
            path=status.folder,
            reason=f"{lacking} would have to be fetched, and {' or '.join(OFFLINE_VARIABLES)} forbids that",
            fix="fetch it while there is a network: `wan models ensure`",
        )


def agreed(variant: VariantSpec, listing: Listing) -> Listing:
    """The files of a source that the manifest names, or all where it names none.

    Raises ModelError where the source lacks one, or says another size or digest than the manifest.
    """
    if not variant.files:
        return listing
    there = {file.path: file for file in listing.files}
    for wanted in variant.files:
        found = there.get(wanted.path)
        differs = found is not None and (
            (wanted.size is not None and found.size != wanted.size)
            or (wanted.sha256 and found.sha256 and found.sha256 != wanted.sha256)
        )
        if found is None or differs:
            raise ModelError(
                ErrorCode.MISSING_FILES if found is None else ErrorCode.CHECKSUM_FAIL,
                "the source does not have what the manifest names",
                path=listing.source,
                reason=f"{wanted.path} {'is not there' if found is None else 'is another file'} "
                f"in revision {listing.revision[:40]}",
                fix="check the repository and revision in the manifest",
            )
    files = tuple(
        RemoteFile(file.path, there[file.path].size, file.sha256 or there[file.path].sha256, there[file.path].git_id)
        for file in variant.files
    )
    return Listing(listing.source, listing.revision, files)


def _is_all_of(right: dict[str, FileRecord], listing: Listing) -> bool:
    return right.keys() >= {file.path for file in listing.files}


def _listing_of(verified: Verified) -> Listing:
    files = tuple(RemoteFile(path, record.size, record.sha256) for path, record in verified.files.items())
    return Listing(verified.source, verified.revision, files)


def _publish(partial: Path, folder: Path, records: dict[str, FileRecord]) -> None:
    """Move what was fetched to where it belongs: the folder as one where there is none yet."""
    (folder / VERIFIED_NAME).unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        wanted = {partial / path for path in records}
        for found in partial.rglob("*"):
            if found not in wanted and not found.is_dir():  # of another revision
                found.unlink()
        partial.replace(folder)
        return
    for path in records:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (partial / path).replace(target)
    shutil.rmtree(partial)


def _as_published(folder: Path, records: dict[str, FileRecord]) -> dict[str, FileRecord]:
    """With the times that the files have in their place."""
    return {path: replace(record, mtime_ns=(folder / path).stat().st_mtime_ns) for path, record in records.items()}


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_writable(path, error) from error


def _all_failed(name: ModelName, failures: list[tuple[str, ModelError]]) -> ModelError:
    if len(failures) == 1:
        return failures[0][1]
    said = "; ".join(f"{label}: {error.code.value}, {error.reason}" for label, error in failures)
    return ModelError(
        ErrorCode.ALL_SOURCES_FAILED,
        f"{name} cannot be had",
        reason=said,
        fix=failures[-1][1].fix,
        context={"sources": [{"source": label, "code": error.code.value} for label, error in failures]},
    )
