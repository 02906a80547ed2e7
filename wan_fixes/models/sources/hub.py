"""The Hugging Face hub as a source: which files a revision has, and their content.

https://huggingface.co/docs/hub/api: ``/api/models/OWNER/NAME/revision/REVISION?blobs=true`` lists them, and
``/OWNER/NAME/resolve/REVISION/PATH`` gives one, mostly by a redirect to another server.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final
from urllib.parse import quote

from wan_fixes.health.text import plain
from wan_fixes.models.credentials import secret
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import Listing, RemoteFile, is_fetched
from wan_fixes.models.sources.web import Answer, RetryPolicy, WebClient
from wan_fixes.models.spec import HubSource

ENDPOINT_VARIABLE: Final = "HF_ENDPOINT"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_ENDPOINT: Final = "https://huggingface.co"


def hub_endpoint() -> str:
    """What `HF_ENDPOINT` names, else the hub's own address."""
    return (os.environ.get(ENDPOINT_VARIABLE) or _ENDPOINT).rstrip("/")


class HubStore:
    """One repository of the hub, as a `Source`."""

    def __init__(
        self,
        source: HubSource,
        *,
        endpoint: str | None = None,
        token: str | None = None,
        retry: RetryPolicy | None = None,
        timeouts: tuple[float, float] = (10.0, 30.0),
    ) -> None:
        self._source = source
        self._endpoint = endpoint or hub_endpoint()
        self._token = secret("hub-token") if token is None else token
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self._client = WebClient(self._endpoint, headers, timeouts=timeouts)
        self._retry = retry or RetryPolicy()

    @property
    def label(self) -> str:
        """For people and for the lock file."""
        return f"hub:{self._source.repository}"

    def listing(self, revision: str | None = None) -> Listing:
        """The files of `revision` (default: that of the manifest), and the commit that it stands for."""
        wanted = quote(revision or self._source.revision, safe="")
        address = f"{self._endpoint}/api/models/{self._source.repository}/revision/{wanted}"
        reply = self._retry.run(lambda: self._client.json(address, {"blobs": "true"}))
        try:
            files = tuple(_file(entry) for entry in reply["siblings"] if is_fetched(str(entry["rfilename"])))
            return Listing(self.label, _text(reply["sha"]), files)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                ErrorCode.BAD_REPLY,
                "a server does not give what is needed",
                path=address,
                reason=f"its list of files is not what it should be: {error!r}",
                fix="run it again; if it stays so, take another source",
            ) from error

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> Answer:
        """A part of a file of that revision."""
        if not _COMMIT.fullmatch(revision):  # another source's: here it names nothing, and digests tell what comes
            revision = self._source.revision
        path = quote(file.path, safe="/")
        address = f"{self._endpoint}/{self._source.repository}/resolve/{quote(revision, safe='')}/{path}"
        return self._client.read(address, start, stop, etag)

    def commits(self, since: str, until: str) -> list[str]:
        """The commits after revision `since` up to `until`, the latest first: their day and title.

        At most the page that the hub gives at once. Raises ModelError.
        """
        address = f"{self._endpoint}/api/models/{self._source.repository}/commits/{quote(until, safe='')}"
        reply = self._retry.run(lambda: self._client.json(address))
        found = []
        for entry in reply if isinstance(reply, list) else ():
            if not isinstance(entry, dict) or entry.get("id") == since:
                break
            found.append(plain(f"{str(entry.get('date', ''))[:10]} {entry.get('title', '')}".strip(), 200))
        return found

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _file(entry: dict[str, Any]) -> RemoteFile:
    large = entry.get("lfs") or {}
    size: Any = large.get("size", entry.get("size"))  # `check_listing` looks whether it is one
    git_id = "" if large else entry.get("blobId") or ""
    return RemoteFile(str(entry["rfilename"]), size, large.get("sha256") or "", git_id)
