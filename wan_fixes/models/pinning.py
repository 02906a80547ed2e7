"""Pinning models on purpose: what their sources say now, beside what is pinned; and what may be signed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from wan_fixes.models.agreement import agreed
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import Listing, RemoteFile, files_of_model
from wan_fixes.models.lock_file import pins_of
from wan_fixes.models.manifest import parse_manifest
from wan_fixes.models.names import ModelName
from wan_fixes.models.signatures import KEY_VARIABLE, Signed
from wan_fixes.models.sources.source import Source

State = Literal["same", "new", "changed"]


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
        """For programs: docs/cli.md describes it."""
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
    pins = pins_of(path)
    if pins is None:
        parse_manifest(data, path)
        return Signed.MANIFEST
    for name, listing in pins.items():
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
