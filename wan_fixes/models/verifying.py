"""Which of a model's files are what they should be: by their records, or by reading them, with all cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wan_fixes.models.correlation import adopt, correlation_id
from wan_fixes.models.fetching import Progress
from wan_fixes.models.installed import Verified
from wan_fixes.models.listing import Listing, RemoteFile
from wan_fixes.models.records import FileRecord, matching_record


def right_files(
    folder: Path, listing: Listing, part_bytes: int, stop: threading.Event | None = None
) -> dict[str, FileRecord]:
    """A record of each file in `folder` that is what it should be, by path; what is not known of one is read.

    Raises ModelError once `stop` is set.
    """
    verified = Verified.read(folder)
    right = {}
    for file in listing.files:
        record = None if verified is None else verified.right(folder, file.path)
        if record is not None and file.sha256 and not record.is_of(file):
            continue  # it is known to be another
        if record is None or not record.is_of(file):
            record = matching_record(folder / file.path, file, part_bytes, stop=stop)
        if record is not None:
            right[file.path] = record
    return right


def verify_files(
    name: str,
    folder: Path,
    listing: Listing,
    verified: Verified | None,
    part_bytes: int,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, FileRecord]:
    """A record of each file in `folder` that is what it should be, by path. Nothing is believed that was not read."""
    done, lock = 0, threading.Lock()

    def read(file: RemoteFile) -> FileRecord | None:
        def came(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                on_progress(Progress(name, min(done, listing.bytes), listing.bytes, file.path))

        known = None if verified is None else verified.files.get(file.path)
        return matching_record(folder / file.path, file, part_bytes, known, came)

    # Digests are taken without the interpreter's lock; the largest first, so that no core waits at the end.
    largest_first = sorted(listing.files, key=lambda file: -file.size)
    with ThreadPoolExecutor(
        os.cpu_count() or 1, thread_name_prefix="verify", initializer=adopt, initargs=(correlation_id(),)
    ) as executor:
        records = zip(largest_first, executor.map(read, largest_first), strict=True)
        return {file.path: record for file, record in records if record is not None}
