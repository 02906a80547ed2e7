"""Taking over models that are on this machine already: they stay where they are, and are linked, not copied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.gc import remove_model
from wan_fixes.models.installed import ModelState
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.listing import Listing, files_of_model
from wan_fixes.models.nearby import Place, link_files
from wan_fixes.models.publishing import disk_errors, publish
from wan_fixes.models.sources.folder import FolderStore, folders_of_model
from wan_fixes.models.sources.hub_cache import HubCache
from wan_fixes.models.target import Target, refuse_sensitive, target_of

_FORMAT: Final = 1


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


class Migration:
    """Adopts what is in folders of the user's, and undoes it. Their files are read, and never changed."""

    def __init__(self, ensurer: ModelEnsurer) -> None:
        self._ensurer = ensurer
        self._notes = ensurer.resolver.state / "adopted"

    def find(self, folder: Path, name: str | None = None) -> list[Candidate]:
        """The models that may be in `folder`: a model itself, a folder of models, or a cache of the hub's client.

        With a `name` it is that model, whatever the folder is called. Raises ModelError where there is none.
        """
        if name is not None:
            return [Candidate(self._ensurer.target(name), folder, FolderStore(folder, with_digests=True))]
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
        with (
            ensurer.recorder.operation("migrate", target.name) as operation,
            ensurer.locks.hold(target.name.folder_name),
        ):
            if ensurer.look(target).state is ModelState.COMPLETE:
                return Adopted(str(target.name), target.folder, 0, (), 0)
            listing = self._listing(candidate)
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
                note = {"format": _FORMAT, "from": str(candidate.folder), "seconds": time.time()}
                write_json(self._note(target), note)
            if not missing:
                publish(target.name, listing, target.partial, target.folder, linked, right)
            return Adopted(
                str(target.name),
                target.folder,
                sum(record.size for record in linked.values()),
                tuple(file.path for file in missing),
                sum(file.size for file in missing),
            )

    def undo(self, model_id: str, variant: str | None = None) -> Path:
        """Take the links away again; returns the folder that the model was taken from. Raises ModelError."""
        ensurer, target = self._ensurer, self._ensurer.target(model_id, variant)
        with ensurer.locks.hold(target.name.folder_name):
            content: Any = read_json(self._note(target))
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                raise ModelError(
                    ErrorCode.NOT_FOUND,
                    f"{target.name} was not taken over",
                    path=target.folder,
                    reason="there is no note of it",
                    fix="`wan models gc` removes models that were fetched",
                )
            if ensurer.usage.is_in_use(target.name.folder_name):
                raise ModelError(
                    ErrorCode.IN_USE,
                    f"{target.name} is in use",
                    path=target.folder,
                    reason="a training has loaded it",
                    fix="wait for its end",
                )
            with disk_errors(target.folder):
                remove_model(target.folder)
                self._note(target).unlink()
            return Path(str(content["from"]))

    def _listing(self, candidate: Candidate) -> Listing:
        """What the model should be: as it is pinned or its source says; where none answers, as it is there."""
        try:
            return self._ensurer.lock(str(candidate.target.name))
        except ModelError as error:
            if error.code in (ErrorCode.NOT_WRITABLE, ErrorCode.NO_SPACE):
                raise
            listing = files_of_model(candidate.target.spec, candidate.place.listing())
            return self._ensurer.pin_listing(candidate.target, listing)

    def _targets(self) -> Iterable[Target]:
        for spec in self._ensurer.manifest.models.values():
            for variant in spec.variants.values():
                yield target_of(spec, variant, self._ensurer.resolver)

    def _note(self, target: Target) -> Path:
        return self._notes / f"{target.name.folder_name}.json"


def _candidates(folder: Path, target: Target) -> Iterable[Candidate]:
    for found in folders_of_model(folder, target.spec, target.variant, target.name):
        if found != folder or _is_named_like(folder, target):
            yield Candidate(target, found, FolderStore(found, with_digests=True))
    for cache in (folder, folder / "hub", folder.parent):
        place = HubCache(target.variant.hub, cache)
        if place.folder.is_dir() and (cache != folder.parent or place.folder == folder):
            yield Candidate(target, place.folder, place)


def _is_named_like(folder: Path, target: Target) -> bool:
    """Whether a folder that is itself a model may be this one: a model's files do not say which it is."""
    repository = target.variant.hub.repository.partition("/")[2].casefold()
    return folder.name.casefold() in (repository, target.name.folder_name.casefold(), target.spec.model_id.casefold())
