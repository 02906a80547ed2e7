"""Taking over models that are on this machine already: they stay where they are, and are linked, not copied."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.agreement import agreed
from wan_fixes.models.components import require_components
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.file_states import states_below
from wan_fixes.models.gc import remove_model
from wan_fixes.models.installed import REMOVING_NAME, ModelState, Verified
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.linking import is_linked
from wan_fixes.models.listing import Listing, RemoteFile, files_of_model
from wan_fixes.models.nearby import Place, link_files
from wan_fixes.models.publishing import disk_errors, publish, remove_empty_folders
from wan_fixes.models.sources.folder import FolderStore, folders_of_model
from wan_fixes.models.sources.hub_cache import HubCache
from wan_fixes.models.target import Target, refuse_sensitive, target_of

_FORMAT: Final = 2
# What a source, the pins or the disk say against it, which what a folder holds cannot make good.
_SAYS_NO: Final = frozenset(
    {
        ErrorCode.NOT_WRITABLE,
        ErrorCode.NO_SPACE,
        ErrorCode.CHECKSUM_FAIL,
        ErrorCode.MISSING_FILES,
        ErrorCode.SIGNATURE_FAIL,
        ErrorCode.UNSAFE_PATH,
        ErrorCode.INVALID_CONFIG,
    }
)


@dataclass(frozen=True)
class Candidate:
    """A model of the manifest that may lie in a folder."""

    target: Target
    folder: Path
    place: FolderStore | HubCache


@dataclass(frozen=True)
class Adopted:
    """What became of a candidate.

    Attributes
    ----------
    linked:
        Bytes that are there now without being fetched or copied.
    missing:
        Files that the folder does not have, or has spoilt.
    bytes_needed:
        To be fetched until the model is complete.
    """

    name: str
    folder: Path
    linked: int
    missing: tuple[str, ...]
    bytes_needed: int

    @property
    def is_complete(self) -> bool:
        """Whether all of the model was there."""
        return not self.missing


@dataclass(frozen=True)
class Undone:
    """What became of a model whose links were taken away.

    Attributes
    ----------
    folder:
        Where the files that were linked still are.
    left:
        Files of the model that stay, since they are not links to those: they were fetched.
    """

    folder: Path
    left: tuple[str, ...]


@dataclass(frozen=True)
class _Note:
    """What is remembered of a model that was taken over.

    Attributes
    ----------
    place:
        The label of where it came from, which it may be pinned to.
    links:
        The file that each path of the model was linked to.
    """

    folder: str
    place: str
    links: Mapping[str, str]

    def write(self, path: Path) -> None:
        content = {"format": _FORMAT, "from": self.folder, "place": self.place, "seconds": time.time()}
        write_json(path, {**content, "links": dict(self.links)})

    @classmethod
    def read(cls, path: Path) -> _Note | None:
        content: Any = read_json(path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return None
        return cls(content["from"], content["place"], content["links"])


class Migration:
    """Adopts what is in folders of the user's, and undoes it. Their files are read, and never changed."""

    def __init__(self, ensurer: ModelEnsurer) -> None:
        self._ensurer = ensurer
        self._notes = ensurer.resolver.state / "adopted"

    def find(self, folder: Path, name: str | None = None) -> list[Candidate]:
        """The models that may be in `folder`: a model itself, a folder of models, or a cache of the hub's client.

        With a `name` it is that model, whatever the folder is called. Raises ModelError where there is none.
        """
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as the user wrote them
        if name is not None:
            return [_in_folder(self._ensurer.target(name), folder)]
        found = [candidate for target in self._targets() for candidate in _candidates(folder, target)]
        if not found:
            raise ModelError(
                ErrorCode.NOT_FOUND,
                "there is no model to take over",
                path=folder,
                reason="neither it nor a folder in it is one of a model in the manifest, in diffusers' layout",
                fix="name the folder that has the model_index.json, or a cache of the hub's client",
            )
        return found

    def adopt(self, candidate: Candidate, *, on_progress: Callable[[Progress], None] = lambda _: None) -> Adopted:
        """Have a model where it belongs, as links to the files in its folder, whose digests are compared first.

        What is missing there is named; `ensure` fetches it. Raises ModelError.
        """
        ensurer, target = self._ensurer, candidate.target
        refuse_sensitive(target)
        with ensurer.working_on("migrate", target) as operation:
            if ensurer.look(target).state is ModelState.COMPLETE:
                return Adopted(str(target.name), target.folder, 0, (), 0)
            known = self._known_listing(target)
            listing = known or self._listing_as_it_is(candidate)
            right = ensurer.right_files(target.folder, listing)
            done = 0

            def came(count: int, path: str) -> None:
                nonlocal done
                done += count
                on_progress(Progress(str(target.name), max(0, done), listing.bytes, path))

            places: list[Place] = [candidate.place]
            with disk_errors(target.partial):
                lacking = [file for file in listing.files if file.path not in right]
                # An earlier time may have linked some.
                linked = ensurer.right_files(target.partial, replace(listing, files=tuple(lacking)))
                lacking = [file for file in lacking if file.path not in linked]
                part_bytes = ensurer.options.part_bytes
                linked |= link_files(lacking, places, target.partial, part_bytes, smallest=0, came=came)
            missing = [file for file in lacking if file.path not in linked]
            if linked:
                operation.came("linked", sum(record.size for record in linked.values()))
                self._write_note(candidate, [file for file in listing.files if file.path in linked])

            def confirm(folder: Path) -> None:
                if ensurer.features.check_components:
                    require_components(folder, target.spec)
                if known is None:
                    ensurer.pin_listing(target, listing)

            if not missing:
                publish(target.name, listing, target.partial, target.folder, linked, right, confirm)
            return Adopted(
                str(target.name),
                target.folder,
                sum(record.size for record in linked.values()),
                tuple(file.path for file in missing),
                sum(file.size for file in missing),
            )

    def undo(self, model_id: str, variant: str | None = None) -> Undone:
        """Take the links away again, and nothing else. Raises ModelError."""
        ensurer, target = self._ensurer, self._ensurer.target(model_id, variant)
        with ensurer.locks.hold(target.name.folder_name):
            note = _Note.read(self._note(target))
            if note is None:
                raise ModelError(
                    ErrorCode.NOT_FOUND,
                    f"{target.name} was not taken over",
                    path=target.folder,
                    reason="there is no note of it",
                    fix="`wan models gc` removes models that were fetched",
                )
            ensurer.refuse_in_use(target, "wait for its end")
            with disk_errors(target.folder):
                left = (*_take_links(target.folder, note.links), *_take_links(target.partial, note.links))
                pinned = ensurer.lock_file.unchecked(target.name)
                if pinned is not None and pinned.source == note.place:
                    ensurer.lock_file.forget(target.name)
                self._note(target).unlink()
            return Undone(Path(note.folder), left)

    def _known_listing(self, target: Target) -> Listing | None:
        """What the model should be, as it is pinned or its source says; None where none answers."""
        try:
            return self._ensurer.lock(str(target.name))
        except ModelError as error:
            if error.code in _SAYS_NO:
                raise
            return None

    def _listing_as_it_is(self, candidate: Candidate) -> Listing:
        """What the place has of the model. Raises ModelError where the manifest says otherwise, or it is not whole."""
        target = candidate.target
        self._ensurer.lock_file.check_open(target.name)
        if isinstance(candidate.place, FolderStore) and self._ensurer.features.check_components:
            require_components(candidate.folder, target.spec)  # before anything is linked
        return agreed(target.variant, files_of_model(target.spec, candidate.place.listing()))

    def _write_note(self, candidate: Candidate, linked: Iterable[RemoteFile]) -> None:
        """Add to what is noted of a model those of its files that lie there as links to the candidate's."""
        target, path = candidate.target, self._note(candidate.target)
        before = _Note.read(path)
        links = {} if before is None else dict(before.links)
        for file in linked:
            for source in candidate.place.paths_of(file):
                if is_linked(source, target.partial / file.path):
                    links[file.path] = str(source)
                    break
        if links:
            _Note(str(candidate.folder), candidate.place.label, links).write(path)

    def _targets(self) -> Iterable[Target]:
        for spec, variant in self._ensurer.manifest.variants():
            yield target_of(spec, variant, self._ensurer.resolver)

    def _note(self, target: Target) -> Path:
        return self._notes / f"{target.name.folder_name}.json"


def _candidates(folder: Path, target: Target) -> Iterable[Candidate]:
    for found in folders_of_model(folder, target.spec, target.variant, target.name):
        if found != folder or _is_named_like(folder, target):
            yield _in_folder(target, found)
    for cache in (folder, folder / "hub", folder.parent):
        place = HubCache(target.variant.hub, cache)
        if place.folder.is_dir() and (cache != folder.parent or place.folder == folder):
            yield Candidate(target, place.folder, place)


def _in_folder(target: Target, folder: Path) -> Candidate:
    return Candidate(target, folder, FolderStore(folder, with_digests=True, components=target.spec.components))


def _take_links(folder: Path, links: Mapping[str, str]) -> tuple[str, ...]:
    """Delete what still is a link, by path, and folders that are empty then; returns the paths of what is left."""
    files = (found for found, _ in states_below(folder) if not found.name.startswith("."))
    there = {found.relative_to(folder).as_posix() for found in files}
    linked = {path for path in there & links.keys() if is_linked(Path(links[path]), folder / path)}
    verified = Verified.read(folder)
    is_begun = verified is None and (folder / REMOVING_NAME).exists()
    if is_begun or (verified is not None and verified.files.keys() & there <= linked):
        remove_model(folder)
        return ()
    for path in linked:
        (folder / path).unlink()
    remove_empty_folders(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return tuple(sorted(there - linked))


def _is_named_like(folder: Path, target: Target) -> bool:
    """Whether a folder that is itself a model may be this one: a model's files do not say which it is."""
    repository = target.variant.hub.repository.partition("/")[2].casefold()
    return folder.name.casefold() in (repository, target.name.folder_name.casefold(), target.spec.model_id.casefold())
