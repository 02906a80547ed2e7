"""A model's folder gives way to another one: after a kill at any moment it is the old one or the new one.

What is to happen is written down first (`.state/swaps/NAME.json`). Then the old folder is put aside, the new one takes
its place, the lock file and the history follow, and the note is deleted. Whoever comes next finishes what it finds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.history import Change
from wan_fixes.models.installed import VERIFIED_NAME, Verified
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.listing import Listing
from wan_fixes.models.names import ModelName, problem_with_path
from wan_fixes.models.publishing import disk_errors
from wan_fixes.store.atomic import replace_patiently

_FORMAT: Final = 1


@dataclass(frozen=True)
class Swap:
    """What is to happen.

    Attributes
    ----------
    listing:
        Of the revision that takes the place, for the lock file.
    change:
        For the history.
    aside:
        Where the old folder goes, below the root; "" where it is not kept.
    new:
        Where the new folder is now, below the root.
    waits:
        Whether it is done only when nobody uses the model any more.
    """

    listing: Listing
    change: Change
    aside: str
    new: str
    waits: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the note."""
        return {
            "format": _FORMAT,
            "listing": self.listing.as_json(),
            "change": self.change.as_json(),
            "aside": self.aside,
            "new": self.new,
            "waits": self.waits,
        }

    @classmethod
    def from_json(cls, content: Any) -> Swap | None:
        """What `as_json` wrote, or None."""
        try:
            if content["format"] != _FORMAT:
                return None
            listing, change = Listing.from_json(content["listing"]), Change.from_json(content["change"])
            places = str(content["aside"]), str(content["new"])
            if any(problem_with_path(place) for place in places if place):
                return None
            return cls(listing, change, *places, waits=content["waits"] is True)
        except (KeyError, TypeError, ValueError, ModelError):
            return None


class Swapper:
    """Swaps folders below one root. Its methods want the model's lock to be held.

    Parameters
    ----------
    is_in_use:
        Whether a living process uses the model in a folder of that name.
    settle:
        Writes lock file and history; may be called twice for one swap.
    """

    def __init__(
        self,
        resolver: ModelResolver,
        is_in_use: Callable[[str], bool],
        settle: Callable[[ModelName, Swap], None],
    ) -> None:
        self._resolver = resolver
        self._is_in_use = is_in_use
        self._settle = settle

    def swap(self, name: ModelName, folder: Path, swap: Swap) -> None:
        """Put the new folder in the place of `folder`, now or, where it waits, as soon as nobody uses that.

        Raises ModelError; then the old one is in its place still.
        """
        note = self._note(name)
        write_json(note, swap.as_json())
        if swap.waits and self._is_in_use(name.folder_name):
            return
        try:
            self._put_aside(name, folder, swap)
        except OSError as error:
            note.unlink(missing_ok=True)
            raise ModelError(
                ErrorCode.IN_USE,
                "the model cannot be put aside",
                path=folder,
                reason=error.strerror or str(error),
                fix="end what has its files open, and run it again; nothing was changed",
            ) from error
        self.finish(name, folder)

    def is_begun(self, name: ModelName) -> bool:
        """Whether a swap was begun, or waits, and is not finished."""
        return self._note(name).exists()

    def finish(self, name: ModelName, folder: Path) -> None:
        """Finish what was begun, if anything was; what waits, goes on waiting while somebody uses the model."""
        note = self._note(name)
        if not note.exists():
            return
        swap = Swap.from_json(read_json(note))
        if swap is not None and swap.waits and self._is_in_use(name.folder_name):
            return
        if swap is not None:
            new = self._resolver.root / swap.new
            with disk_errors(folder):
                if _is_of(new, swap.listing):
                    self._put_aside(name, folder, swap)
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    replace_patiently(new, folder)
            if _is_of(folder, swap.listing):
                self._settle(name, swap)
        with disk_errors(note):
            note.unlink()
        shutil.rmtree(self._gone(name), ignore_errors=True)

    def _put_aside(self, name: ModelName, folder: Path, swap: Swap) -> None:
        aside = self._resolver.root / swap.aside if swap.aside else self._gone(name)
        if not folder.exists():
            return
        if (aside / VERIFIED_NAME).exists():  # of an earlier time that this revision was left
            shutil.rmtree(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        replace_patiently(folder, aside)
        (aside / VERIFIED_NAME).touch()  # from now on it is an old one

    def give_up(self, name: ModelName) -> None:
        """Forget what waits: the model stays as it is."""
        with disk_errors(self._note(name)):
            self._note(name).unlink(missing_ok=True)

    def _gone(self, name: ModelName) -> Path:
        return self._resolver.temporary / f"{name.folder_name}.gone"

    def _note(self, name: ModelName) -> Path:
        return self._resolver.swap_note(name.folder_name)


def _is_of(folder: Path, listing: Listing) -> bool:
    """Whether the model in a folder is whole in that revision, by its record."""
    verified = Verified.read(folder)
    return verified is not None and verified.revision == listing.revision
