"""What became of a model over time: each change of its revision, with what changed."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal

from wan_fixes.models.failures import ModelError
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.listing import Listing
from wan_fixes.models.names import ModelName

_FORMAT: Final = 1
_MOST_CHANGES: Final = 200

Action = Literal["update", "rollback"]


@dataclass(frozen=True)
class Change:
    """One change of a model's revision.

    Attributes
    ----------
    action:
        "update" or "rollback".
    before:
        What the model consisted of until then: enough to fetch it again.
    revision:
        That it has from then on.
    changed:
        Paths of the files that are other ones, new or gone.
    bytes:
        Of the files that changed, as they are from then on.
    log:
        What the source says of the commits between, the latest first.
    seconds:
        When (since 1970, UTC).
    """

    action: str
    before: Listing
    revision: str
    changed: tuple[str, ...]
    bytes: int
    log: tuple[str, ...]
    seconds: float

    @classmethod
    def now(
        cls, action: Action, before: Listing, after: Listing, same: Collection[str], log: tuple[str, ...] = ()
    ) -> Change:
        """From one revision to another at this moment; the files `same` stay as they are."""
        paths = {file.path for file in before.files} | {file.path for file in after.files}
        count = sum(file.size for file in after.files if file.path not in same)
        return cls(action, before, after.revision, tuple(sorted(paths.difference(same))), count, log, time.time())

    def as_json(self) -> dict[str, Any]:
        """For the file, and for programs."""
        return {
            "action": self.action,
            "before": self.before.as_json(),
            "revision": self.revision,
            "changed": list(self.changed),
            "bytes": self.bytes,
            "log": list(self.log),
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, content: Any) -> Change:
        """What `as_json` wrote. Raises KeyError, TypeError, ValueError or ModelError for anything else."""
        return cls(
            str(content["action"]),
            Listing.from_json(content["before"]),
            str(content["revision"]),
            tuple(map(str, content["changed"])),
            int(content["bytes"]),
            tuple(map(str, content["log"])),
            float(content["seconds"]),
        )


class History:
    """Of the models below one root. Who writes has the model's lock."""

    def __init__(self, resolver: ModelResolver) -> None:
        self._folder = resolver.state / "history"

    def changes(self, name: ModelName) -> list[Change]:
        """Those of a model, the oldest first; none where there is no sound record."""
        content = read_json(self._folder / f"{name.folder_name}.json")
        try:
            return [Change.from_json(entry) for entry in content["changes"]] if content["format"] == _FORMAT else []
        except (KeyError, TypeError, ValueError, ModelError):
            return []

    def add(self, name: ModelName, change: Change) -> None:
        """Write down a change, once. Raises ModelError."""
        changes = self.changes(name)
        if change not in changes:
            entries = [one.as_json() for one in [*changes, change][-_MOST_CHANGES:]]
            write_json(self._folder / f"{name.folder_name}.json", {"format": _FORMAT, "changes": entries})
