"""Making sure that a model is there, complete and genuine, before anything is loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from wan_fixes.models.agreement import agreed, with_digests
from wan_fixes.models.components import require_components
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.feature_flags import FeatureFlags
from wan_fixes.models.fetching import FetchOptions, Progress, Watch, fetch_files
from wan_fixes.models.history import History
from wan_fixes.models.installed import ModelState, ModelStatus, Verified, incomplete
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.listing import Listing, RemoteFile, files_of_model
from wan_fixes.models.lock_file import LockFile
from wan_fixes.models.locks import LockManager
from wan_fixes.models.manifest import Manifest, load_manifest
from wan_fixes.models.names import ModelName
from wan_fixes.models.nearby import OtherModels, Place
from wan_fixes.models.quota import check_quota
from wan_fixes.models.recording import Kind, ModelRecorder, Operation
from wan_fixes.models.records import FileRecord
from wan_fixes.models.sources.asking import Result, SourceRound
from wan_fixes.models.sources.folder import FolderStore, folders_of_model, local_folders
from wan_fixes.models.sources.hub_cache import HubCache
from wan_fixes.models.sources.order import OFFLINE_VARIABLES, is_offline, sources_of
from wan_fixes.models.sources.source import Source
from wan_fixes.models.storage import Storage, storage_of
from wan_fixes.models.swap import Swap, Swapper
from wan_fixes.models.target import Target, find_target
from wan_fixes.models.usage import UsageLog
from wan_fixes.models.verifying import right_files, verify_files


class ModelEnsurer:
    """Has models present, complete and genuine below one root.

    Parameters
    ----------
    manifest, resolver:
        Which models there are, and where they lie (default: as the environment says).
    options:
        How files are fetched.
    make_sources:
        Makes the places to fetch a model from, in the order in which they are asked.
    features:
        What is switched on (default: as the environment says).
    """

    def __init__(
        self,
        manifest: Manifest | None = None,
        resolver: ModelResolver | None = None,
        *,
        options: FetchOptions | None = None,
        make_sources: Callable[[Target], Iterable[Source]] | None = None,
        features: FeatureFlags | None = None,
    ) -> None:
        self.manifest = manifest or load_manifest()
        self.resolver = resolver or ModelResolver.default()
        self.resolver.check()
        self.options = options or FetchOptions()
        self.locks = LockManager(self.resolver.locks)
        self.lock_file = LockFile(self.resolver.lock_file, self.locks)
        self.features = features or FeatureFlags.from_environment()
        self.recorder = ModelRecorder(self.resolver, is_on=self.features.record_operations)
        self.usage = UsageLog(self.resolver, self.locks)
        self.history = History(self.resolver)
        self.swapper = Swapper(self.resolver, self.usage.is_in_use, self._settle)
        self._make_sources = make_sources or (lambda target: sources_of(target, self.options.retry))
        self._round = SourceRound(remembers=self.features.negative_cache)

    def ensure(
        self,
        model_id: str,
        variant: str | None = None,
        *,
        lock_timeout: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
        is_opened: bool = True,
    ) -> Path:
        """The folder of a model that is complete; it is fetched, or mended, where it is not.

        A complete model asks no server. Of several callers, in any process, one fetches and the others wait.

        Parameters
        ----------
        model_id:
            ``ID``, ``ID@VERSION`` or ``ID@VERSION#VARIANT``.
        lock_timeout:
            Seconds to wait for another process that works on it (None: as long as it takes).
        is_opened:
            Of a model that is encrypted, the folder is one with decrypted files, which goes with this process; else it
            is the one where it lies.

        Raises
        ------
        ModelError
            With a code that says why it cannot be had. What came until then is kept.
        """
        target = self.target(model_id, variant)
        storage, listing = self.storage(target), self.known_listing(target)
        if storage.look(listing).state is not ModelState.COMPLETE or self.swapper.is_begun(target.name):
            stop = stop or threading.Event()
            with self.working_on("ensure", target, lock_timeout, on_wait, stop) as operation:
                self.swapper.finish(target.name, target.folder)
                status = self.look(target)  # another process may have fetched it meanwhile
                if status.state is not ModelState.COMPLETE:
                    operation.begin()
                    self._have(target, status, Watch(on_progress, stop, operation.came))
            listing = self.known_listing(target)
        elif listing is None:
            self.lock_file.check_open(target.name)  # a folder's own record is signed by nobody
        self.usage.note(target.name)
        if not is_opened:
            return target.folder
        return storage.open(listing, self.options.safety_margin, on_progress)

    def status(self, model_id: str, variant: str | None = None) -> ModelStatus:
        """What is there of a model. Asks no server, and reads no file's content."""
        target = self.target(model_id, variant)
        found = self.look(target)
        if target.folder.is_dir() and self.locks.is_held(target.name.folder_name):
            return replace(found, state=ModelState.VERIFYING)
        return found

    def verify_integrity(
        self,
        model_id: str,
        variant: str | None = None,
        *,
        lock_timeout: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> ModelStatus:
        """Read all files of a model and compare their digests; what is found is remembered.

        Files whose digest is wrong are named in `ModelStatus.corrupt`. No file of the model is changed, and no server
        is asked. `lock_timeout`, `on_wait` and `stop` are as for `ensure`.
        """
        target = self.target(model_id, variant)
        with self.working_on("verify", target, lock_timeout, on_wait, stop) as operation:
            operation.begin()
            found = self._verify(target, on_progress)
            if found.corrupt:
                operation.count("corrupt_files", len(found.corrupt))
                operation.tell("corrupt", f"{target.name} has files that are spoilt", files=list(found.corrupt))
            return found

    def repair(
        self,
        model_id: str,
        variant: str | None = None,
        *,
        lock_timeout: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> ModelStatus:
        """Read all files of a model, and fetch those parts of them that are not what they should be.

        Raises ModelError like `ensure`.
        """
        target, stop = self.target(model_id, variant), stop or threading.Event()
        with self.working_on("repair", target, lock_timeout, on_wait, stop) as operation:
            operation.begin()
            self.swapper.finish(target.name, target.folder)
            status = self._verify(target, on_progress)
            if status.state is not ModelState.COMPLETE:
                self._have(target, status, Watch(on_progress, stop, operation.came))
        return self.look(target)

    def lock(self, model_id: str, variant: str | None = None) -> Listing:
        """What a model should consist of: as it is pinned, else as its first source says now, which is pinned then.

        Nothing is fetched. Raises ModelError.
        """
        target = self.target(model_id, variant)
        known = self.known_listing(target)
        if known is not None:
            return known
        return self.from_first_source(target, lambda source: self._first_listing(target, source))

    # For the other operations on models

    @contextlib.contextmanager
    def working_on(
        self,
        kind: Kind,
        target: Target,
        lock_timeout: float | None = None,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Operation]:
        """Hold a model's lock, and record what is done within the block."""
        with (
            self.recorder.operation(kind, target.name) as operation,
            self.locks.hold(target.name.folder_name, lock_timeout, on_wait, stop),
        ):
            yield operation

    def refuse_in_use(self, target: Target, fix: str) -> None:
        """Raise ModelError (IN_USE) while a process uses a model that is to go, or to change."""
        if self.usage.is_in_use(target.name.folder_name):
            raise ModelError(
                ErrorCode.IN_USE,
                f"{target.name} is in use",
                path=target.folder,
                reason="a training has loaded it",
                fix=fix,
            )

    def target(self, model_id: str, variant: str | None = None) -> Target:
        """The model of that name. Raises ModelError."""
        return find_target(self.manifest, self.resolver, model_id, variant)

    def look(self, target: Target) -> ModelStatus:
        """The state of a model, whoever works on it."""
        return self.storage(target).look(self.known_listing(target))

    def known_listing(self, target: Target) -> Listing | None:
        """What the model should be, without asking anybody; None where that is not known yet."""
        pinned = self.lock_file.get(target.name)
        if pinned is not None and pinned.origin in ("", target.origin):
            return pinned
        variant = target.variant
        if variant.files and all(file.size is not None and file.sha256 for file in variant.files):
            files = tuple(RemoteFile(file.path, file.size or 0, file.sha256 or "") for file in variant.files)
            return files_of_model(target.spec, Listing(str(self.manifest.path), variant.hub.revision, files))
        return None

    def places(self, target: Target) -> list[Place]:
        """Where this machine may have files of a model already."""
        spec, variant, name = target.spec, target.variant, target.name
        folders = [folder for local in local_folders() for folder in folders_of_model(local, spec, variant, name)]
        found: list[Place] = []
        if self.features.link_from_other_models:
            found.append(OtherModels(self.resolver.root, target.folder))
        if self.features.link_from_hub_cache:
            found.append(HubCache(variant.hub))
        return [*found, *(FolderStore(folder, components=spec.components) for folder in folders)]

    def right_files(self, folder: Path, listing: Listing) -> dict[str, FileRecord]:
        """Of the files in a folder, those that are what they should be; what is not known of one is read."""
        return right_files(folder, listing, self.options.part_bytes)

    def pin_listing(self, target: Target, listing: Listing) -> Listing:
        """Write down that a model consists of this, from now on. Raises ModelError."""
        listing = replace(listing, origin=target.origin)
        self.lock_file.put(target.name, listing)
        return listing

    def storage(self, target: Target) -> Storage:
        """How a model lies in its folder."""
        return storage_of(target, self.resolver, self.options.part_bytes)

    def from_first_source(self, target: Target, work: Callable[[Source], Result]) -> Result:
        """What `work` gives for the first source with which it does not fail; those that just failed come last."""
        return self._round.first_that_can(target.name, self._make_sources(target), work)

    # Inside

    def _have(self, target: Target, status: ModelStatus, watch: Watch) -> None:
        """Bring what is missing, and publish it."""
        try:
            self._have_once(target, status, watch)
        except _UnprovenError:
            try:
                self._have_once(target, status, watch)  # now that there is no record, all files are read
            except _UnprovenError as unproven:
                raise unproven.error from None

    def _have_once(self, target: Target, status: ModelStatus, watch: Watch) -> None:
        """Bring what is missing from the first source that has it, and publish it."""
        storage, listing = self.storage(target), self.known_listing(target)
        if listing is None:
            self.lock_file.check_open(target.name)
        right = {} if listing is None else storage.right_files(listing, watch.stop)
        if listing is not None and right.keys() >= {file.path for file in listing.files}:
            self._publish(target, listing, {}, right, watch)
            return
        try:
            self.from_first_source(target, lambda source: self._bring(source, target, listing, right, watch))
        except ModelError as error:
            if is_offline() and error.code is ErrorCode.NOT_FOUND:
                raise _offline(target, status) from error
            raise

    def _bring(
        self, source: Source, target: Target, listing: Listing | None, right: Mapping[str, FileRecord], watch: Watch
    ) -> None:
        storage, is_first = self.storage(target), listing is None
        if listing is None:
            listing = self._first_listing(target, source)
            right = storage.right_files(listing, watch.stop)
        check_quota(self.resolver.root, sum(file.size for file in listing.files if file.path not in right))
        fetched = fetch_files(
            str(target.name),
            source,
            listing,
            right,
            target.partial,
            self.options,
            watch,
            places=[*([source] if isinstance(source, FolderStore) else []), *self.places(target)],
            spoilt=storage.spoilt(),
        )
        complete = with_digests(listing, {**right, **fetched})
        if complete != listing:
            self.pin_listing(target, complete)
        try:
            self._publish(target, complete, fetched, right, watch)
        except (ModelError, _UnprovenError) as error:
            if is_first and getattr(error, "code", None) in (None, ErrorCode.MISSING_FILES):
                self.lock_file.forget(target.name)  # what the source has may be no whole model
            raise

    def _publish(
        self,
        target: Target,
        listing: Listing,
        fetched: Mapping[str, FileRecord],
        right: Mapping[str, FileRecord],
        watch: Watch,
    ) -> None:
        try:
            self.storage(target).publish(listing, fetched, right, watch.on_progress, self._check_of(target))
        except ModelError as error:
            if right and error.code is ErrorCode.MISSING_FILES:
                raise _UnprovenError(error) from error
            raise

    def _first_listing(self, target: Target, source: Source) -> Listing:
        """What a source says that the model consists of, which holds from now on."""
        return self.pin_listing(target, agreed(target.variant, files_of_model(target.spec, source.listing())))

    def _check_of(self, target: Target) -> Callable[[Path], None]:
        """What a folder must pass before it counts as the model."""
        if not self.features.check_components:
            return lambda _: None
        return lambda folder: require_components(folder, target.spec)

    def _settle(self, name: ModelName, swap: Swap) -> None:
        self.lock_file.put(name, swap.listing)
        self.history.add(name, swap.change)

    def _verify(self, target: Target, on_progress: Callable[[Progress], None]) -> ModelStatus:
        verified = Verified.read(target.folder)
        listing = self.storage(target).listing_as_stored(self.known_listing(target))
        if listing is None or not target.folder.is_dir():
            return self.look(target)
        right = verify_files(str(target.name), target.folder, listing, verified, self.options.part_bytes, on_progress)
        missing = tuple(file.path for file in listing.files if not (target.folder / file.path).is_file())
        wrong = tuple(file.path for file in listing.files if file.path not in right and file.path not in missing)
        if not missing and not wrong:
            Verified.now(target.name, listing, right).write(target.folder)
            return self.look(target)
        if verified is not None:
            times = {path: (target.folder / path).stat().st_mtime_ns for path in wrong}
            replace(verified, wrong=times).write(target.folder)
        at = None if verified is None else verified.seconds
        return incomplete(target.name, target.folder, listing, missing, wrong, verified_at=at)


def _offline(target: Target, status: ModelStatus) -> ModelError:
    lacking = ", ".join((*status.missing, *status.corrupt)[:5]) or "all of it"
    return ModelError(
        ErrorCode.OFFLINE,
        f"{target.name} is not complete",
        path=status.folder,
        reason=f"{lacking} would have to be fetched, and {' or '.join(OFFLINE_VARIABLES)} forbids that",
        fix="fetch it while there is a network: `wan models ensure`",
    )


class _UnprovenError(Exception):
    """Files that were taken for right by size and time make no whole model with the others."""

    def __init__(self, error: ModelError) -> None:
        super().__init__(str(error))
        self.error = error
