"""A file's bytes from a source, wherever the connection breaks: reading goes on there."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.sources.rate import RateLimiter
from wan_fixes.models.sources.source import Piece, Source
from wan_fixes.models.sources.web import RetryPolicy

_LOOK_SECONDS: Final = 0.2


class StoppedError(Exception):
    """Reading was ended from outside."""


class Ending(threading.Event):
    """Whether reading is to end: somebody outside asked for it, or a part of it failed.

    To `set` it says that a part failed, so that the others end too. Whoever asks from outside is not touched.
    """

    def __init__(self, asked: threading.Event) -> None:
        super().__init__()
        self._asked = asked

    def is_set(self) -> bool:
        """Whether it is to end."""
        return super().is_set() or self._asked.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is to end, at most `timeout` seconds; returns whether it is."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (left := until - time.monotonic()) > 0:
            super().wait(min(left, _LOOK_SECONDS))
        return self.is_set()


class FileStream:
    """Reads parts of one file, one after another; used by one thread.

    Parameters
    ----------
    on_bytes:
        Told how many bytes came, also of those that are passed over.
    stop:
        Looked at before each piece, and while it waits.
    """

    def __init__(
        self,
        source: Source,
        file: RemoteFile,
        revision: str,
        *,
        rate: RateLimiter,
        retry: RetryPolicy,
        on_bytes: Callable[[int], None],
        stop: Ending,
    ) -> None:
        self._source = source
        self._file = file
        self._revision = revision
        self._rate = rate
        self._retry = retry
        self._on_bytes = on_bytes
        self._stop = stop
        self._piece: Piece | None = None
        self._rest: Iterator[bytes] = iter(())
        self._at = 0
        self._is_whole = False
        #: What names the state of the file that is read; "" before the first answer, or where it has no name.
        self.etag = ""

    @property
    def is_whole(self) -> bool:
        """Whether the source gives the whole file and no parts: then they are best read from this one answer."""
        return self._is_whole

    def read(self, start: int, stop: int, etag: str = "") -> Iterator[bytes]:
        """The bytes from `start` to before `stop`, of the file in the state that `etag` names.

        Raises ModelError when they cannot be had, also after trying again, and StoppedError.
        """
        failures = 0
        while start < stop:
            try:
                if self._piece is None or not self._is_whole or self._at > start:
                    self._open(start, stop, etag)
                for chunk in self._until(stop):
                    passed = max(0, start - (self._at - len(chunk)))
                    if passed < len(chunk):
                        start, failures = self._at, 0
                        yield chunk[passed:]
                if start < stop:
                    raise self._ends_early()
            except ModelError as error:
                self.close()
                if not self._stop.is_set():
                    self._retry.wait(error, failures, self._stop)
                if self._stop.is_set():
                    raise StoppedError from error
                failures += 1

    def close(self) -> None:
        """Let go of the connection."""
        if self._piece is not None:
            self._piece.close()
            self._piece = None

    def _open(self, start: int, stop: int, etag: str) -> None:
        self.close()
        piece = self._piece = self._source.open(self._file, self._revision, start, stop, etag)
        if piece.total is not None and piece.total != self._file.size:
            raise ModelError(
                ErrorCode.SOURCE_CHANGED,
                "a file is not what it should be",
                path=self._file.path,
                reason=f"its source has {piece.total} bytes of it, and it should be {self._file.size}",
                fix="run it again: it then takes the files as they are now",
            )
        self._is_whole = piece.is_whole
        self._rest, self._at, self.etag = piece.chunks(), piece.start, piece.etag

    def _until(self, stop: int) -> Iterator[bytes]:
        """What comes before `stop`; what came with it is kept for the next part."""
        while self._at < stop:
            chunk = next(self._rest, b"")
            if self._stop.is_set():
                raise StoppedError
            if not chunk:
                return
            self._rate.take(len(chunk), self._stop)
            self._on_bytes(len(chunk))
            kept = chunk[stop - self._at :]
            if kept:
                chunk = chunk[: stop - self._at]
                self._rest = _before(kept, self._rest)
            self._at += len(chunk)
            yield chunk

    def _ends_early(self) -> ModelError:
        return ModelError(
            ErrorCode.NETWORK,
            "a file ends too early",
            path=self._file.path,
            reason=f"{self._at} of {self._file.size} bytes came",
            fix="run it again: it goes on where it was",
        )


def _before(chunk: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield chunk
    yield from rest
