"""What a place that has model files must offer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from wan_fixes.models.listing import Listing, RemoteFile


class Piece(Protocol):
    """Bytes of a file as they come, to be closed when enough are read."""

    #: Where they begin in the file.
    start: int
    #: Bytes of the whole file, where that is known.
    total: int | None
    #: What names the state that the file is in; "" where nothing does.
    etag: str
    #: Whether all of the file comes, since the place knows no parts.
    is_whole: bool

    def chunks(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Source(Protocol):
    """Raises ModelError for whatever goes wrong."""

    @property
    def label(self) -> str:
        """For people and for the lock file."""

    def listing(self, revision: str | None = None) -> Listing:
        """The files of a revision (default: the one that the manifest names)."""

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> Piece:
        """A file's bytes from `start` to before `stop`, or all of it: `Piece.start` tells.

        With `etag` only while the file is in that state.
        """

    def close(self) -> None:
        """Let go of all connections."""
