"""`models.lock`: the revision, sizes and digests that a model had at its first download, which hold from then on.

Trust on first use: what the hub says the first time is believed, and must stay so. Lines of it can be compared with
those of another machine. Where a key is configured nobody is trusted on first use: the file must be signed, and models
are pinned on purpose, by `wan models manifest lock`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.listing import Listing
from wan_fixes.models.locks import LockManager
from wan_fixes.models.names import ModelName
from wan_fixes.models.signatures import KEY_VARIABLE, Signed, require_signature, trusted_keys

FORMAT = 1
_PIN_IT = "pin it with `wan models manifest lock`, look at what that wrote, and sign it: `wan models manifest sign`"


class LockFile:
    """The pins below one root; processes may write at once."""

    def __init__(self, path: Path, locks: LockManager) -> None:
        self.path = path
        self._locks = locks
        # What was read last, as long as the file and the keys are the same: each `status` asks.
        self._read: tuple[object, dict[str, object], dict[str, Listing | None]] | None = None

    def get(self, name: ModelName) -> Listing | None:
        """What is pinned of a model, or None.

        Raises ModelError (SIGNATURE_FAIL) where a key is configured and the file is not signed with it.
        """
        entries, listings = self._known()
        key = str(name)
        if key not in listings:
            listings[key] = _listing_of(entries.get(key))
        return listings[key]

    def put(self, name: ModelName, listing: Listing) -> None:
        """Pin a model to this, as it was found. Raises ModelError where it cannot be written, and as `check_open`."""
        if trusted_keys() and self.get(name) == listing:
            return
        self.check_open(name)
        self._write({name: listing}, self._entries)

    def forget(self, name: ModelName) -> None:
        """Pin a model to nothing, where that was not done on purpose. Raises ModelError where it cannot be written."""
        if not trusted_keys() and str(name) in self._entries():
            self._write({}, lambda: {key: entry for key, entry in self._entries().items() if key != str(name)})

    def check_open(self, name: ModelName) -> None:
        """Raise ModelError (SIGNATURE_FAIL) where a key is configured, so that nothing is pinned by the way."""
        if trusted_keys():
            raise ModelError(
                ErrorCode.SIGNATURE_FAIL,
                f"nobody who is trusted has pinned {name} to this",
                path=self.path,
                reason=f"{KEY_VARIABLE} is set, and what a source says is signed by nobody",
                fix=_PIN_IT,
            )

    def pin(self, listings: Mapping[ModelName, Listing]) -> None:
        """Pin models on purpose, also where a key is configured: the file is to be signed anew then.

        Raises ModelError where it cannot be written, and where it has pins of other models that should be signed and
        are not: they would be signed with it.
        """
        names = set(map(str, listings))
        self._write(listings, lambda: self._entries() if _models_of(read_json(self.path)).keys() - names else {})

    def unchecked(self, name: ModelName) -> Listing | None:
        """What is pinned of a model, by whomever: to be shown, and not to be believed."""
        return _listing_of(_models_of(read_json(self.path)).get(str(name)))

    def _write(self, listings: Mapping[ModelName, Listing], kept: Callable[[], dict[str, object]]) -> None:
        with self._locks.hold("models.lock", timeout=30.0):
            self._require_sound()
            entries = kept() | {str(name): listing.as_json() for name, listing in listings.items()}
            write_json(self.path, {"format": FORMAT, "models": entries})

    def _require_sound(self) -> None:
        """Raise ModelError where there is a file that would be lost by writing it anew."""
        content = read_json(self.path)
        if self.path.exists() and (not isinstance(content, dict) or content.get("format") != FORMAT):
            raise ModelError(
                ErrorCode.NOT_WRITABLE,
                "the pins of models cannot be read, and are not written over",
                path=self.path,
                reason="the file is spoilt, or of a later wan-fixes",
                fix="put back a copy of it; or move it away, and what the sources say next is pinned anew",
            )

    def _entries(self) -> dict[str, object]:
        return self._known()[0]

    def _known(self) -> tuple[dict[str, object], dict[str, Listing | None]]:
        """The entries, and what they were found to mean."""
        keys = trusted_keys()
        try:
            state = self.path.stat()
            now: object = (state.st_mtime_ns, state.st_size, state.st_ino, keys)
        except OSError:
            now = (None, keys)
        if self._read is None or self._read[0] != now:
            self._read = now, _models_of(self._signed() if keys else read_json(self.path)), {}
        return self._read[1], self._read[2]

    def _signed(self) -> Any:
        """The content, from the very bytes that were found to be signed."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModelError(
                ErrorCode.SIGNATURE_FAIL,
                "the pins of models cannot be read",
                path=self.path,
                reason=error.strerror or str(error),
                fix="make the file readable",
            ) from error
        require_signature(self.path, data, Signed.LOCK)
        try:
            return json.loads(data.partition(b"\n")[2])
        except (ValueError, RecursionError):
            return None


def _listing_of(entry: object) -> Listing | None:
    try:
        return None if entry is None else Listing.from_json(entry)
    except ModelError:
        return None


def _models_of(content: Any) -> dict[str, object]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return {}
    entries = content.get("models")
    return entries if isinstance(entries, dict) else {}
