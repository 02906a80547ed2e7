"""Fetching the files of a listing into a folder: several parts at once, and only what is not there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from wan_fixes.models.correlation import adopt, correlation_id, model_logger
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.finished import FinishedFiles
from wan_fixes.models.layout import no_space, not_writable
from wan_fixes.models.listing import Listing, RemoteFile
from wan_fixes.models.partial_file import PART_BYTES, PartialFile
from wan_fixes.models.records import FileRecord, matching_record, record_of
from wan_fixes.models.sources.rate import RateLimiter
from wan_fixes.models.sources.source import Source
from wan_fixes.models.sources.stream import Ending, FileStream, StoppedError
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.stopping import stopped
from wan_fixes.store.atomic import FULL

logger = model_logger(__name__)

CONNECTIONS: Final = 8
# What makes a file worth a second start: it changed at its source, or came spoilt.
_WORTH_ANEW: Final = frozenset({ErrorCode.SOURCE_CHANGED, ErrorCode.CHECKSUM_FAIL, ErrorCode.SIZE_MISMATCH})


class Downloader:
    """Fetches from one source.

    Parameters
    ----------
    connections:
        Parts that are fetched at once.
    on_bytes:
        Told how many bytes of which file came, from any thread; what is fetched again counts again.
    stop:
        Set from outside to end it: what is there is kept.
    """

    def __init__(
        self,
        source: Source,
        *,
        connections: int = CONNECTIONS,
        part_bytes: int = PART_BYTES,
        rate: RateLimiter | None = None,
        retry: RetryPolicy | None = None,
        on_bytes: Callable[[int, str], None] = lambda *_: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._source = source
        self._connections = max(1, connections)
        self._part_bytes = part_bytes
        self._rate = rate or RateLimiter()
        self._retry = retry or RetryPolicy()
        self._on_bytes = on_bytes
        self._stop = Ending(stop or threading.Event())

    def fetch(self, listing: Listing, folder: Path) -> dict[str, FileRecord]:
        """Have all files of the listing in the folder; returns a record of each, by path.

        Raises ModelError for the first that cannot be had. What came is kept for the next time.
        """
        finished = FinishedFiles(folder)
        records: dict[str, FileRecord] = {}
        jobs = []
        for file in listing.files:
            known = finished.right(file)
            if known is None and (known := self._finished(folder / file.path, file)) is not None:
                finished.add({file.path: known})
            if known is None:
                partial = PartialFile(folder / file.path, file, self._part_bytes, self._source.label)
                jobs.append(_FileJob(partial, listing.revision, finished))
            else:
                records[file.path] = known
        self._run(jobs)
        for job in [job for job in jobs if job.spoilt is not None]:
            logger.warning("%s is fetched anew: %s", job.partial.file.path, job.spoilt)
            job.partial.discard()
            job.is_last_try, job.spoilt = True, None
            self._run([job])
        return records | {job.partial.file.path: job.record for job in jobs if job.record is not None}

    def _run(self, jobs: list[_FileJob]) -> None:
        """Fetch what the files lack. Raises ModelError; then nothing is written any more."""
        executor = ThreadPoolExecutor(
            self._connections, thread_name_prefix="models", initializer=adopt, initargs=(correlation_id(),)
        )
        running: dict[Future[list[int]], _FileJob] = {}
        done: SimpleQueue[Future[list[int]]] = SimpleQueue()

        def start(work: Callable[..., list[int]], job: _FileJob, *arguments: Any) -> None:
            future = executor.submit(work, job, *arguments)
            running[future] = job
            future.add_done_callback(done.put)

        failure: BaseException | None = None
        try:
            for job in jobs:
                start(self._begin, job)
            while running:
                future = done.get()
                job, error = running.pop(future), future.exception()
                if error is not None:
                    failure = error if failure is None or isinstance(failure, StoppedError) else failure
                    self._stop.set()
                elif not self._stop.is_set():
                    for number in future.result():
                        start(self._part, job, number)
        except BaseException:
            self._stop.set()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            for job in jobs:
                job.partial.close()
        if failure is not None:
            raise _as_ours(failure, jobs)

    def _begin(self, job: _FileJob) -> list[int]:
        """Open a file and fetch the first part that it lacks; returns the others, to be fetched at once."""
        if self._stop.is_set():
            raise StoppedError
        job.partial.open(self._stop)
        missing = job.left = job.partial.missing
        if not missing:
            job.finish()
            return []
        stream = self._stream(job)
        try:
            for number in tuple(missing):
                self._write_from(job, number, stream)
                if not stream.is_whole or job.spoilt is not None:
                    break
        finally:
            stream.close()
        return list(job.left)

    def _part(self, job: _FileJob, number: int) -> list[int]:
        if self._stop.is_set():
            raise StoppedError
        if job.spoilt is None:
            stream = self._stream(job)
            try:
                self._write_from(job, number, stream)
            finally:
                stream.close()
        return []

    def _stream(self, job: _FileJob) -> FileStream:
        path = job.partial.file.path
        return FileStream(
            self._source,
            job.partial.file,
            job.revision,
            rate=self._rate,
            retry=self._retry,
            on_bytes=lambda count: self._on_bytes(count, path),
            stop=self._stop,
        )

    def _write_from(self, job: _FileJob, number: int, stream: FileStream) -> None:
        chunks = stream.read(*job.partial.span(number), job.partial.etag)
        try:
            job.partial.write_part(number, chunks, lambda: stream.etag)
            job.part_is_there(number)
        except ModelError as error:
            if error.code not in _WORTH_ANEW or job.is_last_try:
                raise
            job.spoilt = error

    def _finished(self, path: Path, file: RemoteFile) -> FileRecord | None:
        """A record of a file that an earlier start finished. Where nobody knows its digest, its size must do."""
        if file.sha256 or file.git_id:
            return matching_record(path, file, self._part_bytes, stop=self._stop)
        try:
            return record_of(path, self._part_bytes, stop=self._stop) if path.stat().st_size == file.size else None
        except OSError:
            return None


class _FileJob:
    """One file: what of it is still to come, and how it ended."""

    def __init__(self, partial: PartialFile, revision: str, finished: FinishedFiles) -> None:
        self.partial = partial
        self.revision = revision
        self._finished = finished
        self.left: list[int] = []
        self.record: FileRecord | None = None
        self.is_last_try = False
        #: Why it is to be fetched anew.
        self.spoilt: ModelError | None = None
        self._lock = threading.Lock()

    def part_is_there(self, number: int) -> None:
        """Put the file in its place when this was the last part. Raises ModelError when it is not what it should be."""
        with self._lock:
            self.left.remove(number)
            if self.left:
                return
        self.finish()

    def finish(self) -> None:
        """Put the file in its place. Raises ModelError when it is not what it should be."""
        self.record = self.partial.finish()
        self._finished.add({self.partial.file.path: self.record})


def _as_ours(error: BaseException, jobs: list[_FileJob]) -> BaseException:
    """What ended it, as one of our errors."""
    if isinstance(error, StoppedError):
        return stopped()
    if not isinstance(error, OSError):
        return error
    folder = jobs[0].partial.target.parent
    if error.errno in FULL:
        return no_space(folder, sum(job.partial.file.size - job.partial.bytes_there for job in jobs if not job.record))
    return not_writable(folder, error)
