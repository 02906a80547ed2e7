"""A download that goes on: with what is there, from whatever source; and one that is told to end, ends (M4, M5, M7)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.models import download, verifying
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.finished import FINISHED_NAME
from wan_fixes.models.installed import Verified
from wan_fixes.models.listing import Listing, RemoteFile
from wan_fixes.models.records import matching_record
from wan_fixes.models.sources.folder import FolderPiece, FolderStore
from wan_fixes.models.sources.rate import RateLimiter
from wan_fixes.models.sources.web import CHUNK_BYTES
from wan_fixes.models.verifying import right_files

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import NEEDED_BYTES, PART, content_of, ensurer

#: More than any disk has.
NO_ROOM = 1 << 60
#: What the server sends at once, with a pause behind it where it is slow.
PIECE_BYTES = 1 << 18
#: What is waited for otherwise takes a minute.
SOON = 20.0


def put_into_partial(root: Path, ending: str) -> None:
    for path, content in whole().items():
        target = root / ".tmp" / "tiny@1.0.0-original.partial" / f"{path}{ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def test_m5_space_that_is_taken_already_is_not_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub, safety_margin=NO_ROOM)
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert caught.value.code is ErrorCode.NO_SPACE
    put_into_partial(tmp_path, ".part")
    assert content_of(models.ensure("tiny")) == whole()
    assert hub.bytes_served == NEEDED_BYTES


def test_m5_where_nothing_is_left_to_fetch_no_space_is_needed(hub: Hub, tmp_path: Path) -> None:
    put_into_partial(tmp_path, "")
    assert content_of(ensurer(tmp_path, hub, safety_margin=NO_ROOM).ensure("tiny")) == whole()
    assert hub.bytes_served == 0


class CountingSource:
    """Gives parts of a folder's files, which are not linked, and knows how many bytes it was asked for."""

    label = "another"

    def __init__(self, folder: Path) -> None:
        self._store = FolderStore(folder)
        self.asked = 0

    def listing(self, revision: str | None = None) -> Listing:
        return self._store.listing(revision)

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> FolderPiece:
        self.asked += stop - start
        return self._store.open(file, revision, start, stop, etag)

    def close(self) -> None:
        self._store.close()


def test_m4_another_source_goes_on_with_the_parts_of_the_first(hub: Hub, tmp_path: Path) -> None:
    stop = threading.Event()
    hub.at_bytes = NEEDED_BYTES // 2, stop.set
    models = ensurer(tmp_path / "models", hub, connections=1)
    with pytest.raises(ModelError):
        models.ensure("tiny", stop=stop)
    there = models.status("tiny").bytes_there
    assert there > PART
    folder = tmp_path / "other"
    for path, content in whole().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    source = CountingSource(folder)
    models = ensurer(tmp_path / "models", hub, make_sources=lambda _: [source])
    assert content_of(models.ensure("tiny")) == whole()
    assert source.asked == NEEDED_BYTES - there


@pytest.fixture
def soon() -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < SOON


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """It is set in a moment."""
    event = threading.Event()
    timer = threading.Timer(0.3, event.set)
    timer.start()
    yield event
    timer.join()


@pytest.mark.usefixtures("soon")
def test_m7_waiting_for_the_next_attempt_hears_that_it_is_to_end(
    hub: Hub, tmp_path: Path, stop: threading.Event
) -> None:
    hub.fail("status", "resolve", 99, (503, {"Retry-After": "60"}))
    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path, hub).ensure("tiny", stop=stop)
    assert caught.value.code is ErrorCode.STOPPED


@pytest.mark.usefixtures("soon")
def test_m7_waiting_for_the_next_attempt_ends_when_another_part_fails(hub: Hub, tmp_path: Path) -> None:
    hub.fail("status", "resolve.*transformer", 99, (503, {"Retry-After": "60"}))
    hub.fail("status", "resolve.*vae", 99, (404, {}))
    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path, hub).ensure("tiny")
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.usefixtures("soon")
def test_m15_a_limit_of_speed_hears_that_it_is_to_end(hub: Hub, tmp_path: Path, stop: threading.Event) -> None:
    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path, hub, rate=RateLimiter(500.0)).ensure("tiny", stop=stop)
    assert caught.value.code is ErrorCode.STOPPED


def test_m7_a_broken_connection_costs_little_of_what_came(hub: Hub, tmp_path: Path) -> None:
    hub.fail("slow", LARGE, 1, 0.7)
    models = ensurer(tmp_path, hub, part_bytes=1 << 20, timeouts=(5.0, 0.3))
    assert content_of(models.ensure("tiny")) == whole()
    ranges = [headers["Range"] for _, path, headers in hub.requests if path.startswith("/storage")]
    again = [int(text.removeprefix("bytes=").partition("-")[0]) for text in ranges]
    assert max(again) >= PIECE_BYTES - CHUNK_BYTES > 0


def spied(read: list[Path]) -> Callable[..., Any]:
    def spy(path: Path, *arguments: Any, **named: Any) -> Any:
        read.append(path)
        return matching_record(path, *arguments, **named)

    return spy


def test_m5_what_is_finished_is_not_read_again(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fail("status", "vae/diffusion", 99, (404, {}))
    with pytest.raises(ModelError):
        ensurer(tmp_path, hub, connections=1).ensure("tiny")
    partial = tmp_path / ".tmp" / "tiny@1.0.0-original.partial"
    finished = {partial / path for path in whole() if (partial / path).exists()}
    spoilt = min(finished)
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    os.utime(spoilt, (1, 1))
    read: list[Path] = []
    monkeypatch.setattr(download, "matching_record", spied(read))
    hub.faults.clear()
    folder = ensurer(tmp_path, hub).ensure("tiny")
    assert content_of(folder) == whole()
    assert len(finished) > 1
    assert finished & set(read) == {spoilt}


@pytest.mark.parametrize("content", [b"", b"{}", b"null"])
def test_m5_a_note_of_finished_files_that_is_spoilt_is_none(hub: Hub, tmp_path: Path, content: bytes) -> None:
    put_into_partial(tmp_path, "")
    (tmp_path / ".tmp" / "tiny@1.0.0-original.partial" / FINISHED_NAME).write_bytes(content)
    assert content_of(ensurer(tmp_path, hub).ensure("tiny")) == whole()
    assert hub.bytes_served == 0


def test_m6_a_file_that_is_known_to_be_another_is_not_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ensurer(tmp_path, hub).ensure("tiny")
    listing = Verified.listing_in(folder)
    assert listing is not None
    files = tuple(replace(file, sha256="0" * 64) if file.path == LARGE else file for file in listing.files)
    read: list[Path] = []
    monkeypatch.setattr(verifying, "matching_record", spied(read))
    assert right_files(folder, replace(listing, files=files), PART).keys() == whole().keys() - {LARGE}
    assert read == []
