"""`models.lock`: the revision, sizes and digests that a model had at its first download, which hold from then on.

Trust on first use: what the hub says the first time is believed, and must stay so. Lines of it can be compared with
those of another machine.
"""

from __future__ import annotations

from pathlib import Path

from wan_fixes.models.failures import ModelError
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.listing import Listing
from wan_fixes.models.locks import LockManager
from wan_fixes.models.names import ModelName

_FORMAT = 1


class LockFile:
    """The pins below one root; processes may write at once."""

    def __init__(self, path: Path, locks: LockManager) -> None:
        self.path = path
        self._locks = locks

    def get(self, name: ModelName) -> Listing | None:
        """What is pinned of a model, or None."""
        entry = self._entries().get(str(name))
        if entry is None:
            return None
        try:
            return Listing.from_json(entry)
        except ModelError:
            return None

    def put(self, name: ModelName, listing: Listing) -> None:
        """Pin a model to this. Raises ModelError where it cannot be written."""
        with self._locks.hold("models.lock", timeout=30.0):
            entries = self._entries() | {str(name): listing.as_json()}
            write_json(self.path, {"format": _FORMAT, "models": entries})

    def _entries(self) -> dict[str, object]:
        content = read_json(self.path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return {}
        entries = content.get("models")
        return entries if isinstance(entries, dict) else {}
