"""Links to a model's files, for somebody who has no credentials: made from a bucket, and read as a source.

A link is an address that holds the right to read one file for some hours. The file of links is JSON:
``{"format": 1, "name": "t2v-1.3B@2.1.0#original", "expires": SECONDS, "files": [{"path", "size", "sha256", "url"}]}``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from wan_fixes.health.text import plain
from wan_fixes.models.agreement import agreed
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import Verified
from wan_fixes.models.listing import Listing, RemoteFile, check_listing, files_of_model, is_fetched
from wan_fixes.models.names import ModelName, parse_name
from wan_fixes.models.sources.addresses import problem_with_address
from wan_fixes.models.sources.revision import revision_of
from wan_fixes.models.sources.s3 import MIRROR_VARIABLE, S3Store
from wan_fixes.models.sources.web import Answer, WebClient
from wan_fixes.models.target import Target

_FORMAT: Final = 1
_LARGEST_FILE: Final = 16 << 20


class LinkStore:
    """A file of links, as a `Source`.

    Parameters
    ----------
    path:
        The file. Raises ModelError that names what is wrong with it.
    name:
        The model that it must be for (default: any).
    timeouts:
        Seconds until a connection stands, and between two pieces of an answer.
    """

    def __init__(
        self, path: Path, name: ModelName | None = None, *, timeouts: tuple[float, float] = (10.0, 30.0)
    ) -> None:
        self.label = f"links:{path.name}"
        self._path = path
        content = _read(path)
        self._name, self._expires = content["name"], content["expires"]
        if name is not None and self._name != str(name):
            raise _unusable(path, f"they are for {plain(self._name, 100)}, and {name} is wanted")
        self._addresses: dict[str, str] = {}
        files = []
        for entry in content["files"]:
            if is_fetched(entry["path"]):
                files.append(RemoteFile(entry["path"], entry["size"], entry["sha256"]))
                self._addresses[entry["path"]] = entry["url"]
        if not files:
            raise _unusable(path, "it has no file of a model")
        states = ((file.path, file.size, file.sha256) for file in files)
        self._listing = Listing(self.label, revision_of(states), tuple(files))
        check_listing(self._listing)
        self._client = WebClient(self._addresses[files[0].path], timeouts=timeouts)

    def listing(self, revision: str | None = None) -> Listing:
        """The files that there are links to."""
        return self._listing

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> Answer:
        """A part of a file."""
        address = self._addresses.get(file.path)
        if address is None:
            raise self._failure(ErrorCode.NOT_FOUND, file, "there is no link to it")
        try:
            return self._client.read(address, start, stop, etag)
        except ModelError as error:
            code, reason, retry_after = error.code, error.reason, error.retry_after
        # Not raised from that error, since what caused it may hold the address, which is the right to read.
        if code is ErrorCode.AUTH_FAIL and self._expires <= time.time():
            reason += f"; the links were good until {_day(self._expires)}"
        raise self._failure(code, file, reason, retry_after)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _failure(self, code: ErrorCode, file: RemoteFile, reason: str, retry_after: float | None = None) -> ModelError:
        if code in (ErrorCode.AUTH_FAIL, ErrorCode.NOT_FOUND):
            fix = f"ask for new links, which `wan models share {self._name}` makes"
        else:
            fix = "check the network and run it again: it goes on where it was"
        what = "a link does not give its file"
        return ModelError(code, what, path=file.path, reason=reason, fix=fix, retry_after=retry_after)


def name_of_links(path: Path, wanted: Sequence[ModelName]) -> str:
    """The model that a file of links is for. Raises ModelError where it cannot be used, or is for none of these."""
    name: str = _read(path)["name"]
    if name not in map(str, wanted):
        raise _unusable(path, f"they are for {plain(name, 100)}, and {', '.join(map(str, wanted))} are wanted")
    return name


def share(target: Target, stores: Iterable[S3Store], seconds: int) -> dict[str, Any]:
    """What a file of links has: to the files of a model in the first bucket that has it, good for so long.

    Digests that the bucket does not know are taken from the model on this disk, where it is complete.

    Raises ModelError when no bucket has it, or none is named.
    """
    failure = ModelError(
        ErrorCode.INVALID_CONFIG,
        f"{target.name} cannot be shared",
        reason="links are made to a bucket's files, and no bucket is named",
        fix=f"name a mirror in {MIRROR_VARIABLE} (s3://BUCKET/PREFIX), or a bucket in the manifest",
    )
    for store in stores:
        try:
            listing = agreed(target.variant, files_of_model(target.spec, store.listing()))
            expires = int(time.time()) + seconds
            files = [
                {
                    "path": file.path,
                    "size": file.size,
                    "sha256": file.sha256,
                    "url": store.address_of(file.path, seconds),
                }
                for file in _with_known_digests(target, listing)
            ]
            return {"format": _FORMAT, "name": str(target.name), "expires": expires, "files": files}
        except ModelError as error:
            failure = error
        finally:
            store.close()
    raise failure


def _with_known_digests(target: Target, listing: Listing) -> list[RemoteFile]:
    verified = Verified.read(target.folder)
    records = {} if verified is None else verified.files
    return [
        replace(file, sha256=records[file.path].sha256)
        if not file.sha256 and file.path in records and records[file.path].size == file.size
        else file
        for file in listing.files
    ]


def _read(path: Path) -> dict[str, Any]:
    """A file of links in which every entry has a text for a path, digest and address; sizes are not looked at."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if len(data) > _LARGEST_FILE:
        raise _unusable(path, f"it is larger than {_LARGEST_FILE >> 20} MiB")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, "it is not JSON") from error
    problem = _problem_with(content)
    if problem is not None:
        raise _unusable(path, problem)
    return content


def _problem_with(content: Any) -> str | None:
    """Why this is no file of links; no address is named, which is the right to read."""
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        return "it has no `format`"
    if content["format"] != _FORMAT:
        return f"its format is {content['format']}, and this program reads {_FORMAT}"
    if not _is_name(content.get("name")):
        return "its `name` is no name of a model"
    if type(content.get("expires")) is not int or not 0 <= content["expires"] < 1 << 40:
        return "its `expires` is no time in seconds since 1970"
    files = content.get("files")
    if not isinstance(files, list):
        return "it has no list of `files`"
    for number, entry in enumerate(files):
        if not isinstance(entry, dict):
            return f"files[{number}] is no table"
        for field in ("path", "sha256", "url"):
            if not isinstance(entry.get(field), str):
                return f"files[{number}] has no text as `{field}`"
        if "size" not in entry:
            return f"files[{number}] has no `size`"
        problem = problem_with_address(entry["url"])
        if problem is not None:
            return f"the url of files[{number}] is not asked: {problem}"
    return None


def _is_name(text: Any) -> bool:
    try:
        return isinstance(text, str) and None not in parse_name(text)
    except ModelError:
        return False


def _unusable(path: Path, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.INVALID_CONFIG,
        "these links cannot be used",
        path=path,
        reason=reason,
        fix="ask for them again, as a file: `wan models share MODEL` writes it",
    )


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
