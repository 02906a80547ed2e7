"""The Hugging Face hub as a source: which files a revision has, and their content.

https://huggingface.co/docs/hub/api: ``/api/models/OWNER/NAME/revision/REVISION?blobs=true`` lists them, and
``/OWNER/NAME/resolve/REVISION/PATH`` gives one, mostly by a redirect to another server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import Listing, RemoteFile, check_listing, is_fetched
from wan_fixes.models.sources.web import Answer, RetryPolicy, WebClient
from wan_fixes.models.spec import HubSource

ENDPOINT_VARIABLE: Final = "HF_ENDPOINT"
_ENDPOINT: Final = "https://huggingface.co"


def hub_endpoint() -> str:
    """What `HF_ENDPOINT` names, else the hub's own address."""
    return (os.environ.get(ENDPOINT_VARIABLE) or _ENDPOINT).rstrip("/")


def hub_token() -> str:
    """The hub's token: of the environment, or as ``hf auth login`` stored it; "" where there is none."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if not token and os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() not in ("1", "ON", "YES", "TRUE"):
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        home = os.environ.get("HF_HOME") or str(Path(cache) / "huggingface")
        try:
            token = Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token").expanduser().read_text("utf-8")
        except (OSError, ValueError):
            return ""
    token = token.strip()
    return token if token.isascii() and token.isprintable() else ""


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
        token = hub_token() if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
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
            listing = Listing(self.label, str(reply["sha"]), files)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                ErrorCode.BAD_REPLY,
                "a server does not give what is needed",
                path=address,
                reason=f"its list of files is not what it should be: {error!r}",
                fix="run it again; if it stays so, take another source",
            ) from error
        check_listing(listing)
        return listing

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> Answer:
        """A part of a file of that revision."""
        path = quote(file.path, safe="/")
        address = f"{self._endpoint}/{self._source.repository}/resolve/{quote(revision, safe='')}/{path}"
        return self._client.read(address, start, stop, etag)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def _file(entry: dict[str, Any]) -> RemoteFile:
    large = entry.get("lfs") or {}
    size: Any = large.get("size", entry.get("size"))  # `check_listing` looks whether it is one
    git_id = "" if large else entry.get("blobId") or ""
    return RemoteFile(str(entry["rfilename"]), size, large.get("sha256") or "", git_id)
