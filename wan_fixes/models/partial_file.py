"""A file that is being fetched in parts: what is there, is known to be there after a kill at any moment.

The bytes are in ``NAME.part``, and which of its parts are whole in ``NAME.part.json``, with a digest of each. A part is
written down there after its bytes are on the disk, so a kill costs what was in flight. When it goes on, every part is
read again and compared, so that what was spoilt meanwhile is fetched anew; in the same pass the digest of the file is
made.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import xxhash

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.records import FileRecord, git_hasher
from wan_fixes.models.stopping import check_stop

PART_BYTES: Final = 16 << 20
_CHUNK_BYTES: Final = 1 << 20
_FORMAT: Final = 1
_ENDING: Final = ".part"
#: What `st_blocks` counts: https://docs.python.org/3/library/os.html#os.stat_result.st_blocks
_BLOCK_BYTES: Final = 512


class PartialFile:
    """One file of a model on its way to `target`; threads may write different parts at once.

    `open` before anything else, `finish` when no part is missing.
    """

    def __init__(self, target: Path, file: RemoteFile, part_bytes: int = PART_BYTES, source: str = "") -> None:
        self.file = file
        self.target = target
        self.part_bytes = part_bytes
        #: The state of the file at its source in which it was begun; "" before, or where that has no name.
        self.etag = ""
        #: The label of that source; "" where parts are only looked at, or taken from this machine.
        self._source = source
        self._data = target.with_name(target.name + _ENDING)
        self._state = target.with_name(target.name + _ENDING + ".json")
        self._done: dict[int, str] = {}
        self._hashed = 0  # parts, from the first
        self._is_hashing = False
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._begin_digests()

    def open(self, stop: threading.Event | None = None) -> None:
        """Make the file, or go on with what is there. Raises OSError, and ModelError once `stop` is set."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        known = self._read_state()
        self._handle = os.open(self._data, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        # It grows by being written: Windows writes zeros to make a file longer.
        if os.fstat(self._handle).st_size > self.file.size:
            os.ftruncate(self._handle, self.file.size)
        if known is not None and self._goes_on(known):
            for number in sorted(known["done"]):
                self._take_back(number, known["done"][number], stop)
        self._write_state()

    def _goes_on(self, known: dict[str, Any]) -> bool:
        """Whether parts that are there may stay: of another source only where a digest decides about the whole."""
        if known["source"] in ("", self._source):
            self.etag = known["etag"]
            return True
        return bool(self.file.sha256 or self.file.git_id)

    def begin_from(self, path: Path, record: FileRecord) -> None:
        """Take over from `path`, a spoilt copy of this file, the parts that are as `record` has them.

        Nothing is done where fetching has begun already. Raises OSError.
        """
        if not record.is_of(self.file) or self._read_state() is not None or not path.is_file():
            return
        self.part_bytes = record.part_bytes
        with self, path.open("rb") as spoilt:
            assert self._handle is not None, "it is open"
            for number, digest in enumerate(record.parts[: self.count]):
                spoilt.seek(number * self.part_bytes)
                part = spoilt.read(self._length(number))
                if xxhash.xxh3_128_hexdigest(part) == digest:
                    _write_at(self._handle, part, number * self.part_bytes)
                    self._done[number] = digest
            os.fsync(self._handle)
            self._write_state()

    def bytes_on_disk(self) -> int:
        """Of the parts that an earlier start wrote, as it noted them. Nothing is opened for writing, or verified."""
        known = self._read_state()
        return 0 if known is None else sum(map(self._length, known["done"]))

    def bytes_allocated(self) -> int:
        """Of the disk, for parts that are there and others that are to come. Some systems take all at once."""
        try:
            state = self._data.stat()
        except OSError:
            return 0
        blocks: int | None = getattr(state, "st_blocks", None)
        return min(self.file.size, state.st_size if blocks is None else blocks * _BLOCK_BYTES)

    def close(self) -> None:
        """Close it, finished or not."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> PartialFile:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def count(self) -> int:
        """How many parts it has."""
        return math.ceil(self.file.size / self.part_bytes)

    @property
    def missing(self) -> list[int]:
        """The numbers of the parts that are not there."""
        with self._lock:
            return [number for number in range(self.count) if number not in self._done]

    @property
    def bytes_there(self) -> int:
        """Of the parts that are."""
        with self._lock:
            return sum(self._length(number) for number in self._done)

    def span(self, number: int) -> tuple[int, int]:
        """Where a part begins, and before which byte it ends."""
        return number * self.part_bytes, number * self.part_bytes + self._length(number)

    def write_part(self, number: int, chunks: Iterable[bytes], etag: Callable[[], str] = str) -> None:
        """Write a part, which is there when this returns.

        `etag` names, once a chunk has come, the state of the file that it is of. Raises ModelError when too many bytes
        come or too few, or when it is of another state than the parts before it; OSError when it cannot be written.
        """
        assert self._handle is not None, "open it first"
        start, stop = self.span(number)
        at, digest = start, xxhash.xxh3_128()
        for chunk in chunks:
            self._is_of(etag())
            if at + len(chunk) > stop:
                raise self._wrong_length(f"more than the {stop - start} bytes of a part came")
            digest.update(chunk)
            _write_at(self._handle, chunk, at)
            at += len(chunk)
        if at != stop:
            raise self._wrong_length(f"{at - start} of the {stop - start} bytes of a part came")
        os.fsync(self._handle)
        with self._lock:
            self._done[number] = digest.hexdigest()
            self._write_state()
        self._hash_on()

    def _is_of(self, etag: str) -> None:
        with self._lock:
            if self.etag and etag and etag != self.etag:
                raise self._changed()
            self.etag = self.etag or etag

    def finish(self) -> FileRecord:
        """Compare the digest of the whole and put the file in its place; returns a record of it.

        Raises ModelError when it is not what it should be: nothing of it is kept then.
        """
        assert not self.missing, "parts are missing"
        self._hash_on()
        self.close()
        sha256, git_id = self._sha256.hexdigest(), self._git_id.hexdigest() if self.file.git_id else ""
        right = (not self.file.sha256 or sha256 == self.file.sha256) and (
            not self.file.git_id or git_id == self.file.git_id
        )
        if not right:
            self.discard()
            raise ModelError(
                ErrorCode.CHECKSUM_FAIL,
                "a file is not what it should be",
                path=self.target,
                reason=f"its digest is {sha256 if self.file.sha256 else git_id}, and should be "
                f"{self.file.sha256 or self.file.git_id}",
                fix="run it again: the file is fetched anew; if it stays so, the source is spoilt",
            )
        self._data.replace(self.target)
        with contextlib.suppress(OSError):
            self._state.unlink()
        parts = tuple(self._done[number] for number in range(self.count))
        return FileRecord.of(self.target, sha256=sha256, git_id=git_id, part_bytes=self.part_bytes, parts=parts)

    def discard(self) -> None:
        """Forget what is there: it is of another state, or spoilt."""
        self.close()
        for path in (self._state, self._data):
            with contextlib.suppress(OSError):
                path.unlink()
        self._done, self.etag, self._hashed = {}, "", 0
        self._begin_digests()

    def _begin_digests(self) -> None:
        self._sha256 = hashlib.sha256()
        self._git_id = git_hasher(self.file.size)

    def _length(self, number: int) -> int:
        return min(self.part_bytes, self.file.size - number * self.part_bytes)

    def _take_back(self, number: int, digest: str, stop: threading.Event | None) -> None:
        """Count a part as there if it is what was written, in the pass in which its bytes go into the digests."""
        before = self._sha256.copy(), self._git_id.copy()
        is_next = number == self._hashed
        found = xxhash.xxh3_128()
        for chunk in self._chunks(*self.span(number)):
            check_stop(stop)
            found.update(chunk)
            if is_next:
                self._take_in(chunk)
        if found.hexdigest() == digest:
            self._done[number] = digest
            self._hashed += is_next
        else:
            self._sha256, self._git_id = before

    def _hash_on(self) -> None:
        """Take into the digests what follows them without a gap; one thread at a time does it for all."""
        while True:
            with self._lock:
                if self._is_hashing or self._hashed not in self._done:
                    return
                self._is_hashing = True
            try:
                for chunk in self._chunks(*self.span(self._hashed)):
                    self._take_in(chunk)
            finally:
                with self._lock:
                    self._hashed += 1
                    self._is_hashing = False

    def _take_in(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self.file.git_id:
            self._git_id.update(chunk)

    def _chunks(self, start: int, stop: int) -> Iterable[bytes]:
        assert self._handle is not None, "open it first"
        while start < stop:
            chunk = _read_at(self._handle, min(_CHUNK_BYTES, stop - start), start)
            if not chunk:
                return
            yield chunk
            start += len(chunk)

    def _read_state(self) -> dict[str, Any] | None:
        """What was written down of this very file, in parts of this size; None where there is nothing sound."""
        known = read_json(self._state)
        try:
            if known["of"] != self._identity() or type(known["part_bytes"]) is not int or known["part_bytes"] < 1:
                return None
            self.part_bytes = known["part_bytes"]  # what is there goes on as it was begun
            done = {int(number): digest for number, digest in known["done"].items()}
            source = known.get("source", "")  # earlier versions did not write it down
            texts = (known["etag"], source)
            if not all(0 <= number < self.count for number in done) or not all(type(text) is str for text in texts):
                return None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return {"etag": known["etag"], "source": source, "done": done}

    def _write_state(self) -> None:
        content = {"of": self._identity(), "source": self._source, "etag": self.etag}
        write_json(self._state, content | {"part_bytes": self.part_bytes, "done": self._done})

    def _identity(self) -> dict[str, Any]:
        file = self.file
        return {
            "format": _FORMAT,
            "path": file.path,
            "size": file.size,
            "sha256": file.sha256,
            "git_id": file.git_id,
        }

    def _changed(self) -> ModelError:
        return ModelError(
            ErrorCode.SOURCE_CHANGED,
            "a file changed while it was fetched",
            path=self.file.path,
            reason="its parts are of different states",
            fix="run it again: it is fetched anew",
        )

    def _wrong_length(self, reason: str) -> ModelError:
        return ModelError(
            ErrorCode.SIZE_MISMATCH,
            "a file is not what it should be",
            path=self.file.path,
            reason=reason,
            fix="run it again: this part is fetched anew",
        )


def _write_at(handle: int, data: bytes, offset: int) -> None:
    if hasattr(os, "pwrite"):
        rest = memoryview(data)
        while rest.nbytes:
            written = os.pwrite(handle, rest, offset)
            rest, offset = rest[written:], offset + written
        return
    with _moving:  # Windows has one position for all threads
        os.lseek(handle, offset, os.SEEK_SET)
        rest = memoryview(data)
        while rest.nbytes:
            rest = rest[os.write(handle, rest) :]


def _read_at(handle: int, count: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, count, offset)
    with _moving:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, count)


_moving = threading.Lock()
