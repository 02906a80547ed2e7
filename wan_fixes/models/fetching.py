"""Bringing the files of a model together: what this machine has is linked, the rest comes from a source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from wan_fixes.models.download import CONNECTIONS, Downloader
from wan_fixes.models.finished import FinishedFiles
from wan_fixes.models.installed import Verified, bytes_fetched, bytes_of_file
from wan_fixes.models.layout import free_bytes, no_space
from wan_fixes.models.listing import Listing
from wan_fixes.models.nearby import Place, link_files
from wan_fixes.models.partial_file import PART_BYTES, PartialFile
from wan_fixes.models.publishing import disk_errors
from wan_fixes.models.records import FileRecord
from wan_fixes.models.sources.rate import RateLimiter
from wan_fixes.models.sources.source import Source
from wan_fixes.models.sources.web import RetryPolicy

#: Bytes that stay free, for what else a training writes.
SAFETY_MARGIN: Final = 2_000_000_000


@dataclass(frozen=True)
class Progress:
    """How far an `ensure` is: bytes of the model that are there, of all; and the file that came last."""

    name: str
    done: int
    total: int
    file: str


@dataclass(frozen=True)
class FetchOptions:
    """How files are fetched.

    Attributes
    ----------
    connections, part_bytes, rate, retry:
        See `Downloader`.
    safety_margin:
        Bytes that stay free on the disk.
    """

    connections: int = CONNECTIONS
    part_bytes: int = PART_BYTES
    rate: RateLimiter = field(default_factory=RateLimiter)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    safety_margin: int = SAFETY_MARGIN


@dataclass(frozen=True)
class Watch:
    """Who is told how it goes, and may end it.

    Attributes
    ----------
    on_bytes:
        Told the label of a source, and how many bytes came from it.
    """

    on_progress: Callable[[Progress], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    on_bytes: Callable[[str, int], None] = lambda *_: None


def fetch_files(
    name: str,
    source: Source,
    listing: Listing,
    right: Mapping[str, FileRecord],
    partial: Path,
    options: FetchOptions,
    watch: Watch,
    *,
    places: Sequence[Place] = (),
    spoilt: Path | None = None,
) -> dict[str, FileRecord]:
    """Have in `partial` all files of the listing but those that are `right` already; returns a record of each.

    Parameters
    ----------
    places:
        Where this machine may have files, which are linked then.
    spoilt:
        A folder of this model with files that are wrong in parts, of which the good parts are taken.

    Raises ModelError; what came until then is kept.
    """
    needed = replace(listing, files=tuple(file for file in listing.files if file.path not in right))
    done = listing.bytes - needed.bytes
    lock = threading.Lock()

    def came(count: int, file: str) -> None:
        nonlocal done
        with lock:
            done = min(listing.bytes, done + count)
            watch.on_progress(Progress(name, done, listing.bytes, file))

    def fetched(count: int, file: str) -> None:
        came(count, file)
        watch.on_bytes(source.label, count)

    with disk_errors(partial, needed.bytes):
        partial.mkdir(parents=True, exist_ok=True)
        records = link_files(needed.files, places, partial, options.part_bytes, came=came)
        if records:
            FinishedFiles(partial).add(records)
    if records:
        watch.on_bytes("linked", sum(record.size for record in records.values()))
    needed = replace(needed, files=tuple(file for file in needed.files if file.path not in records))
    there = bytes_fetched(partial, needed)
    came(there, "")
    space = _space_needed(needed, partial)
    if space and space > free_bytes(partial) - options.safety_margin:
        raise no_space(partial, space, options.safety_margin)
    if spoilt is not None:
        with disk_errors(partial, needed.bytes):
            came(_take_good_parts(spoilt, needed, partial) - there, "")
    fetch_whole = getattr(source, "fetch_whole", None)
    if fetch_whole is not None and needed.files:
        fetch_whole(needed, partial)
    downloader = Downloader(
        source,
        connections=options.connections,
        part_bytes=options.part_bytes,
        rate=options.rate,
        retry=options.retry,
        on_bytes=fetched,
        stop=watch.stop,
    )
    return records | downloader.fetch(needed, partial)


def _space_needed(needed: Listing, partial: Path) -> int:
    """Bytes that the disk must have free: what a file lacks may have its place already."""
    return sum(
        file.size - max(bytes_of_file(partial, file), PartialFile(partial / file.path, file).bytes_allocated())
        for file in needed.files
    )


def _take_good_parts(spoilt: Path, needed: Listing, partial: Path) -> int:
    """Begin with what is sound of files that are not; returns the bytes that are there then."""
    verified = Verified.read(spoilt)
    if verified is not None:
        for file in needed.files:
            record = verified.files.get(file.path)
            if record is not None and not (partial / file.path).exists():
                PartialFile(partial / file.path, file).begin_from(spoilt / file.path, record)
    return bytes_fetched(partial, needed)
