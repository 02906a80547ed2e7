"""Revisions of a model: whether there is a later one, moving to it, and going back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from wan_fixes.models.components import require_components
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress, Watch, fetch_files
from wan_fixes.models.history import Action, Change
from wan_fixes.models.installed import VERIFIED_NAME, ModelState, Verified
from wan_fixes.models.linking import share
from wan_fixes.models.listing import Listing, files_of_model
from wan_fixes.models.manifest import version_key
from wan_fixes.models.publishing import disk_errors, keep_only
from wan_fixes.models.quota import check_quota
from wan_fixes.models.records import FileRecord
from wan_fixes.models.sources.asking import is_local
from wan_fixes.models.sources.source import Source
from wan_fixes.models.swap import Swap
from wan_fixes.models.target import Target, refuse_sensitive
from wan_fixes.models.verifying import verify_files

#: The branch of a repository that is looked at for a later revision.
LATEST: Final = "main"
_WAIT_FOR_IT: Final = "wait for its end, or let the new revision wait for that: `--strategy parallel`"


class MigrationStrategy(str, Enum):
    """How a model moves to another revision. In each, what is there stays whole until the new one is.

    CONSERVATIVE: the old revision is kept, to go back to. AGGRESSIVE: it is removed once the new one is in its place.
    PARALLEL: both are there; the new one takes the place as soon as no training uses the old one.
    """

    CONSERVATIVE = "conservative"
    AGGRESSIVE = "aggressive"
    PARALLEL = "parallel"


@dataclass(frozen=True)
class UpdateInfo:
    """What a later revision would change.

    Attributes
    ----------
    changed:
        The files that are other ones, new or gone; none where the model is up to date.
    bytes_needed:
        To be fetched.
    log:
        What the source says of the commits between, the latest first.
    later_versions:
        Of the model in the manifest: they are models of their own, side by side with this one.
    """

    name: str
    source: str
    revision: str
    latest_revision: str
    changed: tuple[str, ...]
    bytes_needed: int
    log: tuple[str, ...]
    later_versions: tuple[str, ...]

    @property
    def is_available(self) -> bool:
        """Whether anything of the model itself changed: a commit to a page for people does not count."""
        return bool(self.changed)


class ModelVersions:
    """Moves models that an ensurer looks after."""

    def __init__(self, ensurer: ModelEnsurer) -> None:
        self._ensurer = ensurer

    def check(self, model_id: str, variant: str | None = None) -> UpdateInfo:
        """Ask the first source that answers for its latest revision. Nothing is fetched or changed.

        Raises ModelError, also when the model is not there.
        """
        target = self._ensurer.target(model_id, variant)
        before = self._installed(target)
        return self._ensurer.from_first_source(target, lambda source: self._compare(target, before, source)[0])

    def update(
        self,
        model_id: str,
        variant: str | None = None,
        strategy: MigrationStrategy = MigrationStrategy.CONSERVATIVE,
        *,
        lock_timeout: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> Change | None:
        """Move a model to the latest revision of its source; None where nothing of it changed.

        Raises ModelError; the model is as it was then, whatever happened.
        """
        target, stop = self._movable(model_id, variant), stop or threading.Event()
        with self._ensurer.working_on("update", target, lock_timeout, stop=stop) as operation:
            watch = Watch(on_progress, stop, operation.came)
            self._ensurer.swapper.finish(target.name, target.folder)
            if strategy is not MigrationStrategy.PARALLEL:
                self._ensurer.refuse_in_use(target, _WAIT_FOR_IT)
            before = self._installed(target)

            def move(source: Source) -> Change | None:
                info, after, right = self._compare(target, before, source)
                if not info.is_available:
                    return None
                return self._move(target, "update", before, after, right, source, strategy, watch, info.log)

            return self._ensurer.from_first_source(target, move)

    def rollback(
        self,
        model_id: str,
        variant: str | None = None,
        revision: str | None = None,
        *,
        lock_timeout: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> Change:
        """Give a model the revision back that it had before its last change, or the one that is named.

        What was kept is taken; what was not, is fetched again. Raises ModelError.
        """
        target, stop = self._movable(model_id, variant), stop or threading.Event()
        with self._ensurer.working_on("rollback", target, lock_timeout, stop=stop) as operation:
            operation.begin()
            watch = Watch(on_progress, stop, operation.came)
            self._ensurer.swapper.finish(target.name, target.folder)
            self._ensurer.refuse_in_use(target, _WAIT_FOR_IT)
            now = self._installed(target)
            wanted = self._earlier(target, now, revision)
            kept = self._ensurer.resolver.old_version_folder(target.name, wanted.revision)
            same = self._ensurer.right_files(target.folder, wanted)
            right = self._right_of_kept(target, kept, wanted, watch)
            if right.keys() >= {file.path for file in wanted.files}:
                change = Change.now("rollback", now, wanted, same)
                self._swap(target, wanted, change, kept, keep_old=True)
                return change
            strategy = MigrationStrategy.CONSERVATIVE

            def move(source: Source) -> Change:
                return self._move(target, "rollback", now, wanted, same, source, strategy, watch, ())

            return self._ensurer.from_first_source(target, move)

    def history(self, model_id: str, variant: str | None = None) -> list[Change]:
        """The changes of a model, the oldest first."""
        return self._ensurer.history.changes(self._ensurer.target(model_id, variant).name)

    # Inside

    def _movable(self, model_id: str, variant: str | None) -> Target:
        """The model of that name. Raises ModelError where its revision is not to be changed."""
        target = self._ensurer.target(model_id, variant)
        refuse_sensitive(target)
        self._ensurer.lock_file.check_open(target.name)
        return target

    def _installed(self, target: Target) -> Listing:
        """What the model consists of. Raises ModelError where it is not complete."""
        status = self._ensurer.look(target)
        listing = self._ensurer.known_listing(target) or Verified.listing_in(target.folder)
        if status.state is not ModelState.COMPLETE or listing is None:
            raise ModelError(
                ErrorCode.MISSING_FILES,
                f"{target.name} is not complete",
                path=target.folder,
                reason=f"it is {status.state.value}, so there is nothing to move to another revision",
                fix="fetch it first: `wan models ensure`",
            )
        return listing

    def _compare(
        self, target: Target, before: Listing, source: Source
    ) -> tuple[UpdateInfo, Listing, dict[str, FileRecord]]:
        """What the latest revision of a source changes, what it consists of, and the files that stay."""
        if is_local(source):
            raise _knows_no_later(source)
        after = files_of_model(target.spec, source.listing(LATEST))
        right = self._ensurer.right_files(target.folder, after)
        gone = {file.path for file in before.files} - {file.path for file in after.files}
        changed = sorted({file.path for file in after.files if file.path not in right} | gone)
        needed = sum(file.size for file in after.files if file.path not in right)
        log = _log_of(source, before.revision, after.revision) if changed else ()
        later = tuple(
            version
            for model_id, version in self._ensurer.manifest.models
            if model_id == target.spec.model_id and version_key(version) > version_key(target.spec.version)
        )
        info = UpdateInfo(
            str(target.name), source.label, before.revision, after.revision, tuple(changed), needed, log, later
        )
        return info, after, right

    def _move(
        self,
        target: Target,
        action: Action,
        before: Listing,
        after: Listing,
        right: Mapping[str, FileRecord],
        source: Source,
        strategy: MigrationStrategy,
        watch: Watch,
        log: tuple[str, ...],
    ) -> Change:
        """Make the new revision beside the old one, and let it take its place."""
        new = self._ensurer.resolver.next_folder(target.name)
        check_quota(self._ensurer.resolver.root, sum(file.size for file in after.files if file.path not in right))
        with disk_errors(new):
            (new / VERIFIED_NAME).unlink(missing_ok=True)  # what waited there counts no longer
        self._ensurer.swapper.give_up(target.name)
        with disk_errors(new, sum(record.size for record in right.values())):
            carried = _carry(right, target.folder, new)
        places = self._ensurer.places(target)
        fetched = fetch_files(
            str(target.name), source, after, carried, new, self._ensurer.options, watch, places=places
        )
        with disk_errors(new):
            keep_only(new, {**carried, **fetched})
        require_components(new, target.spec)
        Verified.now(target.name, after, {**carried, **fetched}).write(new)
        change = Change.now(action, before, after, carried, log)
        waits = strategy is MigrationStrategy.PARALLEL
        self._swap(target, after, change, new, keep_old=strategy is not MigrationStrategy.AGGRESSIVE, waits=waits)
        return change

    def _swap(
        self, target: Target, listing: Listing, change: Change, new: Path, *, keep_old: bool, waits: bool = False
    ) -> None:
        resolver = self._ensurer.resolver
        old = resolver.old_version_folder(target.name, change.before.revision)
        aside, place = (path.relative_to(resolver.root).as_posix() for path in (old, new))
        pinned = replace(listing, origin=target.origin)
        swap = Swap(pinned, change, aside if keep_old else "", place, waits)
        self._ensurer.swapper.swap(target.name, target.folder, swap)

    def _earlier(self, target: Target, now: Listing, revision: str | None) -> Listing:
        earlier = [change.before for change in reversed(self._ensurer.history.changes(target.name))]
        found = [
            listing
            for listing in earlier
            if listing.revision != now.revision and (revision is None or listing.revision.startswith(revision))
        ]
        if found:
            return found[0]
        known = ", ".join(dict.fromkeys(listing.revision[:12] for listing in earlier)) or "none"
        raise ModelError(
            ErrorCode.NOT_FOUND,
            f"there is no such earlier revision of {target.name}",
            path=target.folder,
            reason=f"the earlier ones are: {known}",
            fix="see `wan models history`",
        )

    def _right_of_kept(self, target: Target, kept: Path, wanted: Listing, watch: Watch) -> dict[str, FileRecord]:
        verified = Verified.read(kept)
        if verified is None:
            return {}
        part_bytes = self._ensurer.options.part_bytes
        return verify_files(str(target.name), kept, wanted, verified, part_bytes, watch.on_progress)


def _carry(right: Mapping[str, FileRecord], folder: Path, new: Path) -> dict[str, FileRecord]:
    """Have the files that stay under the new folder too: linked, or copied where that cannot be."""
    carried = {}
    for path, record in right.items():
        target = new / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if not share(folder / path, target):
            shutil.copy2(folder / path, target)
        carried[path] = replace(record, mtime_ns=target.stat().st_mtime_ns)
    return carried


def _knows_no_later(source: Source) -> ModelError:
    return ModelError(
        ErrorCode.NOT_FOUND,
        "this place does not say what is the latest",
        path=source.label,
        reason="it has what was put there at some time",
        fix="ask where there is a network",
    )


def _log_of(source: Source, since: str, until: str) -> tuple[str, ...]:
    """The commits between two revisions, where the source tells; nothing depends on it."""
    commits = getattr(source, "commits", None)
    if commits is None:
        return ()
    try:
        return tuple(commits(since, until))
    except ModelError:
        return ()
