"""Pinning models on purpose: what their sources say now, beside what is pinned; and what may be signed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from wan_fixes.models.agreement import agreed
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.json_file import body_of
from wan_fixes.models.listing import Listing, RemoteFile, files_of_model
from wan_fixes.models.lock_file import FORMAT
from wan_fixes.models.manifest import parse_manifest
from wan_fixes.models.names import ModelName
from wan_fixes.models.signatures import KEY_VARIABLE, Signed
from wan_fixes.models.sources.source import Source

State = Literal["same", "new", "changed"]

_CHECKSUM_LINE: Final = re.compile(rb"[0-9a-f]{32}\n")


@dataclass(frozen=True)
class Found:
    """What the first source that answers says of a model, beside what is pinned.

    Attributes
    ----------
    state:
        "same": the files are those that are pinned. "new": nothing is pinned. "changed": other files.
    changed:
        The paths of those that are other ones, new or gone.
    """

    name: ModelName
    listing: Listing
    state: State
    changed: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs: the schema `manifest-lock` describes it."""
        return {
            "name": str(self.name),
            "state": self.state,
            "source": self.listing.source,
            "revision": self.listing.revision,
            "files": len(self.listing.files),
            "bytes": self.listing.bytes,
            "changed": list(self.changed),
        }


def compare(ensurer: ModelEnsurer, model_id: str) -> Found:
    """Ask for a model's files and compare them with its pin. Nothing is fetched or written. Raises ModelError."""
    target = ensurer.target(model_id)

    def ask(source: Source) -> Listing:
        listing = agreed(target.variant, files_of_model(target.spec, source.listing()))
        return replace(listing, origin=target.origin)

    pinned = ensurer.lock_file.unchecked(target.name)
    now = ensurer.from_first_source(target, ask)
    if pinned is None:
        return Found(target.name, now, "new", ())
    changed = _changed(pinned, now)
    return Found(target.name, now, "changed" if changed else "same", changed)


def _changed(pinned: Listing, now: Listing) -> tuple[str, ...]:
    before, after = ({file.path: file for file in listing.files} for listing in (pinned, now))
    paths = sorted(before.keys() | after.keys())
    return tuple(path for path in paths if not _is_same(before.get(path), after.get(path)))


def _is_same(one: RemoteFile | None, other: RemoteFile | None) -> bool:
    """Whether it is the same content. Of the digests those count that both sides say; there must be one."""
    if one is None or other is None or one.size != other.size:
        return False
    pairs = ((one.sha256, other.sha256), (one.git_id, other.git_id))
    said = [a == b for a, b in pairs if a and b]
    return all(said) and bool(said)


def signable(path: Path, data: bytes) -> Signed:
    """What a file is that is to be signed. Raises ModelError unless it is a sound manifest or lock file.

    A lock file must have a digest of every file: what is signed leaves nothing to be believed.
    """
    if not _CHECKSUM_LINE.match(data):
        parse_manifest(data, path)
        return Signed.MANIFEST
    for name, listing in _pins_of(data, path).items():
        open_files = [file.path for file in listing.files if not (file.sha256 or file.git_id)]
        if open_files:
            raise ModelError(
                ErrorCode.CHECKSUM_FAIL,
                "this lock file cannot be signed",
                path=path,
                reason=f"of {name} it has no digest of {', '.join(open_files[:3])}: the source does not say one",
                fix=f"fetch it once without {KEY_VARIABLE}, which takes the digests: `wan models ensure {name}`",
            )
    return Signed.LOCK


def _pins_of(data: bytes, path: Path) -> dict[str, Listing]:
    """All that a lock file pins, whoever signed it. Raises ModelError naming the entry that is not sound."""
    pins = {}
    for name, entry in _entries_of(data, path).items():
        try:
            pins[name] = Listing.from_json(entry)
        except ModelError as error:
            raise _unsound(path, f"its entry {name[:100]!r} cannot be read: {error.reason}") from error
    return pins


def _entries_of(data: bytes, path: Path) -> dict[str, object]:
    body = body_of(data)
    if body is None:
        raise _unsound(path, "it was changed since it was written: its first line is another checksum")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _unsound(path, "it is not JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _unsound(path, "it is none, or of a later wan-fixes")
    entries = content.get("models")
    if not isinstance(entries, dict) or not entries:
        raise _unsound(path, "it pins nothing")
    return entries


def _unsound(path: Path, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.BAD_REPLY,
        "this lock file cannot be signed",
        path=path,
        reason=reason,
        fix="pin its models again: `wan models manifest lock`; else move it away first",
    )
