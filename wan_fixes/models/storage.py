"""How a model lies in its folder: as it was fetched, or encrypted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from wan_fixes.models.fetching import Progress
from wan_fixes.models.installed import ModelStatus, Verified, look_at
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.listing import Listing
from wan_fixes.models.publishing import disk_errors, publish
from wan_fixes.models.records import FileRecord
from wan_fixes.models.sealed_model import SEALED_NAME, SealedModel, read_seals
from wan_fixes.models.sealing import SUFFIX, encryption_key
from wan_fixes.models.target import Target
from wan_fixes.models.verifying import right_files

OnProgress = Callable[[Progress], None]
Check = Callable[[Path], None]


class Storage(Protocol):
    """One model as it lies there. Whoever calls what changes it has the model's lock."""

    def look(self, listing: Listing | None) -> ModelStatus:
        """Its state, by names and sizes. `listing` is what it should be, where that is known."""

    def listing_as_stored(self, listing: Listing | None) -> Listing | None:
        """What the files should be as they lie there; None where that is not known."""

    def right_files(self, listing: Listing, stop: threading.Event | None = None) -> dict[str, FileRecord]:
        """A record of each file that needs not be fetched, by path. Raises ModelError where nothing could be stored."""

    def spoilt(self) -> Path | None:
        """A folder with files that may be wrong in parts, of which the good parts can be taken."""

    def publish(
        self,
        listing: Listing,
        fetched: Mapping[str, FileRecord],
        right: Mapping[str, FileRecord],
        on_progress: OnProgress,
        check: Check,
    ) -> None:
        """Let what was fetched take the model's place, beside the files that are right.

        `check` looks at a folder with all of them before that counts, and raises what speaks against it.
        """

    def open(self, listing: Listing | None, margin: int, on_progress: OnProgress) -> Path:
        """A folder to load the model from."""


class PlainStorage:
    """As it was fetched."""

    def __init__(self, target: Target, part_bytes: int) -> None:
        self._target = target
        self._part_bytes = part_bytes

    def look(self, listing: Listing | None) -> ModelStatus:
        """See `Storage`."""
        return look_at(self._target.name, self._target.folder, self._target.partial, listing)

    def listing_as_stored(self, listing: Listing | None) -> Listing | None:
        """See `Storage`."""
        return listing or Verified.listing_in(self._target.folder)

    def right_files(self, listing: Listing, stop: threading.Event | None = None) -> dict[str, FileRecord]:
        """See `Storage`."""
        return right_files(self._target.folder, listing, self._part_bytes, stop)

    def spoilt(self) -> Path | None:
        """See `Storage`."""
        return self._target.folder if self._target.folder.is_dir() else None

    def publish(
        self,
        listing: Listing,
        fetched: Mapping[str, FileRecord],
        right: Mapping[str, FileRecord],
        on_progress: OnProgress,  # noqa: ARG002 - it takes no time
        check: Check,
    ) -> None:
        """See `Storage`."""
        publish(self._target.name, listing, self._target.partial, self._target.folder, fetched, right, check)
        remove_seals(self._target.folder)  # of a time when the model was sensitive

    def open(self, listing: Listing | None, margin: int, on_progress: OnProgress) -> Path:  # noqa: ARG002
        """See `Storage`."""
        return self._target.folder


class SealedStorage:
    """Encrypted."""

    def __init__(self, target: Target, resolver: ModelResolver, part_bytes: int) -> None:
        self._folder, self._partial = target.folder, target.partial
        self._model = SealedModel(target, resolver, part_bytes)

    def look(self, listing: Listing | None) -> ModelStatus:
        """See `Storage`."""
        return self._model.look(listing)

    def listing_as_stored(self, listing: Listing | None) -> Listing | None:  # noqa: ARG002 - it is of other files
        """See `Storage`."""
        return Verified.listing_in(self._folder)

    def right_files(self, listing: Listing, stop: threading.Event | None = None) -> dict[str, FileRecord]:  # noqa: ARG002
        """See `Storage`. Raises ModelError where there is no key."""
        encryption_key()  # before anything is fetched
        return self._model.prepare(listing)

    def spoilt(self) -> Path | None:
        """See `Storage`."""
        return None

    def publish(
        self,
        listing: Listing,
        fetched: Mapping[str, FileRecord],
        right: Mapping[str, FileRecord],
        on_progress: OnProgress,
        check: Check,
    ) -> None:
        """See `Storage`. What is sealed already is not looked at again."""
        if not right:
            check(self._partial)
        self._model.publish(listing, fetched, encryption_key(), on_progress)

    def open(self, listing: Listing | None, margin: int, on_progress: OnProgress) -> Path:
        """See `Storage`."""
        return self._model.open(listing, encryption_key(), margin=margin, on_progress=on_progress)


def remove_seals(folder: Path) -> None:
    """Delete the encrypted files of a model that lies there as it was fetched. Raises ModelError."""
    seals = read_seals(folder)
    with disk_errors(folder):
        for path in seals:
            (folder / f"{path}{SUFFIX}").unlink(missing_ok=True)
        if seals:
            (folder / SEALED_NAME).unlink()


def storage_of(target: Target, resolver: ModelResolver, part_bytes: int) -> Storage:
    """That of a model: the manifest says whether it is sensitive."""
    if target.variant.sensitive:
        return SealedStorage(target, resolver, part_bytes)
    return PlainStorage(target, part_bytes)
