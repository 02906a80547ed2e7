"""What a source has of a model: its files as they are in one revision, which are checked before anything is fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.names import FORBIDDEN_SUFFIXES, check_paths
from wan_fixes.models.spec import ModelSpec

#: Kinds of files that a model folder is made of.
_WANTED_SUFFIXES: Final = (".safetensors", ".json", ".model", ".txt", ".jinja")
INDEX_NAME: Final = "model_index.json"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_GIT_ID: Final = re.compile(r"[0-9a-f]{40}")
_LARGEST_FILE: Final = 1 << 44
_LONGEST_REVISION: Final = 200


@dataclass(frozen=True)
class RemoteFile:
    """A file of a source.

    Attributes
    ----------
    path:
        Below the model's folder.
    size:
        Bytes.
    sha256:
        Of its content; "" where the source does not say.
    git_id:
        Git's id of its content (SHA-1 over a header and it), which the hub gives for small files; "" where there is
        none.
    """

    path: str
    size: int
    sha256: str = ""
    git_id: str = ""

    @property
    def component(self) -> str:
        """The folder that it is in, "" for none."""
        return self.path.rpartition("/")[0].partition("/")[0]


@dataclass(frozen=True)
class Listing:
    """The files of a model in one revision of one source.

    Attributes
    ----------
    origin:
        Where the manifest said that the model comes from when this was pinned (`Target.origin`); "" where nobody
        wrote it down.
    """

    source: str
    revision: str
    files: tuple[RemoteFile, ...]
    origin: str = field(default="", compare=False)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """For the lock file."""
        files = [
            {"path": file.path, "size": file.size, "sha256": file.sha256, "git_id": file.git_id} for file in self.files
        ]
        return {"source": self.source, "revision": self.revision, "origin": self.origin, "files": files}

    @classmethod
    def from_json(cls, content: Any) -> Listing:
        """What `as_json` wrote. Raises ModelError for anything else."""
        try:
            files = tuple(
                RemoteFile(entry["path"], entry["size"], entry["sha256"], entry["git_id"]) for entry in content["files"]
            )
            listing = cls(content["source"], content["revision"], files, str(content.get("origin", "")))
            if not all(isinstance(file.path, str) for file in files):
                raise TypeError("the path of a file is no text")
        except (KeyError, TypeError) as error:
            raise _bad_reply("", f"an entry is not what it should be: {error!r}") from error
        check_listing(listing)
        return listing


def check_listing(listing: Listing) -> None:
    """Raise ModelError unless every file can be stored, its size and digests are such, and the revision is a text."""
    revision = listing.revision
    if not isinstance(revision, str) or not revision.isprintable() or not 0 < len(revision) <= _LONGEST_REVISION:
        raise _bad_reply(listing.source, f"its revision is none: {ascii(revision)[:80]}")
    check_paths((file.path for file in listing.files), listing.source)
    for file in listing.files:
        is_size = type(file.size) is int and 0 <= file.size <= _LARGEST_FILE
        is_digest = all(
            not digest or (isinstance(digest, str) and form.fullmatch(digest))
            for digest, form in ((file.sha256, _SHA256), (file.git_id, _GIT_ID))
        )
        if not is_size or not is_digest:
            raise _bad_reply(listing.source, f"the size or digest of {file.path[:200]!r} is none")


def files_of_model(spec: ModelSpec, listing: Listing) -> Listing:
    """Those that the model needs: of its components, and the index beside them.

    Pictures and pages for people, and whatever can run code, are left out. Raises ModelError naming a component that
    the source does not have, and for what is listed and cannot be stored.
    """
    needed = [
        file
        for file in listing.files
        if is_fetched(file.path) and (file.component in spec.components or file.path == INDEX_NAME)
    ]
    there = {file.component for file in needed}
    missing = [name for name in spec.components if name not in there]
    if missing or all(file.path != INDEX_NAME for file in needed):
        absent = ", ".join(missing) or INDEX_NAME
        raise ModelError(
            ErrorCode.MISSING_FILES,
            "the source does not have all of the model",
            path=listing.source,
            reason=f"{spec.label} needs {absent}, and there is none in revision {listing.revision[:40]}",
            fix="check the repository and revision in the manifest",
            context={"missing": missing},
        )
    selected = replace(listing, files=tuple(needed))
    check_listing(selected)
    return selected


def is_fetched(path: str) -> bool:
    """Whether a file of this name is ever taken from a source."""
    return path.lower().endswith(_WANTED_SUFFIXES) and not path.lower().endswith(FORBIDDEN_SUFFIXES)


def _bad_reply(source: str, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.BAD_REPLY,
        "the list of files is not what it should be",
        path=source or None,
        reason=reason,
        fix="run it again; if it stays so, take another source",
    )
