"""A sensitive model lies on the disk encrypted, and decrypted for one process alone (M14)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.models import ErrorCode, ModelError, ModelState
from wan_fixes.models.agreement import with_digests
from wan_fixes.models.fetching import Watch, fetch_files
from wan_fixes.models.gc import remove_model
from wan_fixes.models.installed import Verified
from wan_fixes.models.listing import Listing
from wan_fixes.models.sealed_model import SEALED_NAME, SealedModel
from wan_fixes.models.sealing import new_key
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.verifying import verify_files

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import NEEDED, PART, content_of, ensurer

KEY = new_key()
OTHER_KEY = new_key()


class Sensitive:
    """A model as `ModelEnsurer` would look after it, step by step."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.models = ensurer(root, hub)
        self.target = self.models.target("tiny")
        self.sealed = SealedModel(self.target, self.models.resolver, PART)
        self.hub = hub

    @property
    def listing(self) -> Listing:
        return self.models.lock("tiny")

    def fetch(self) -> Listing:
        """Have in `.tmp` what is not sealed; returns what was found to be in the files."""
        right = self.sealed.prepare(self.listing)
        source = HubStore(self.target.variant.hub, endpoint=self.hub.address, token="")
        options = self.models.options
        self.fetched = fetch_files("tiny", source, self.listing, right, self.target.partial, options, Watch())
        return with_digests(self.listing, {**right, **self.fetched})

    def ensure(self, key: str = KEY) -> None:
        listing = self.fetch()
        self.sealed.publish(listing, self.fetched, key)

    @property
    def state(self) -> ModelState:
        return self.sealed.look(self.listing).state


@pytest.fixture
def sensitive(hub: Hub, tmp_path: Path) -> Iterator[Sensitive]:
    yield Sensitive(tmp_path, hub)


def is_in_the_clear(root: Path) -> list[str]:
    """The files below a root, outside private folders, in which there is a piece of the weights."""
    pieces = [content[100:164] for content in whole().values() if len(content) > 200]
    found = (path for path in root.rglob("*") if path.is_file() and "private" not in path.parts)
    return [path.name for path in found if any(piece in path.read_bytes() for piece in pieces)]


def test_m14_a_sensitive_model_lies_there_sealed_and_opens_for_one_process(
    sensitive: Sensitive, tmp_path: Path
) -> None:
    assert sensitive.state is ModelState.NOT_PRESENT
    sensitive.ensure()
    folder = sensitive.target.folder
    assert sensitive.state is ModelState.COMPLETE
    assert sorted(content_of(folder)) == sorted([*(f"{path}.age" for path in NEEDED), SEALED_NAME])
    assert is_in_the_clear(tmp_path) == []
    assert not sensitive.target.partial.exists()
    opened = sensitive.sealed.open(sensitive.listing, KEY)
    assert content_of(opened) == whole()
    assert opened.is_relative_to(tmp_path / ".tmp" / "private")
    again = Sensitive(tmp_path, sensitive.hub)
    assert again.sealed.open(again.listing, KEY) == again.sealed.open(None, KEY) == opened


def test_m14_what_is_sealed_is_not_fetched_again(sensitive: Sensitive) -> None:
    sensitive.ensure()
    (sensitive.target.folder / "vae/config.json.age").unlink()
    found = sensitive.sealed.look(sensitive.listing)
    assert (found.state, found.missing) == (ModelState.PARTIAL, ("vae/config.json.age",))
    large = sensitive.target.folder / f"{LARGE}.age"
    os.utime(large, (1, 1))
    sensitive.hub.served.clear()
    sensitive.ensure()
    assert dict(sensitive.hub.served) == {"vae/config.json": 2}
    assert sensitive.state is ModelState.COMPLETE
    assert content_of(sensitive.sealed.open(sensitive.listing, KEY)) == whole()


@pytest.mark.parametrize("after", range(1, 4))
def test_m14_sealing_goes_on_where_it_was_ended(sensitive: Sensitive, tmp_path: Path, after: int) -> None:
    listing = sensitive.fetch()
    paths: list[str] = []

    def interrupt(progress: Any) -> None:
        if progress.file not in paths:
            paths.append(progress.file)
        if len(paths) > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sensitive.sealed.publish(listing, sensitive.fetched, KEY, interrupt)
    assert sensitive.state is ModelState.PARTIAL
    assert not sensitive.target.folder.exists()
    sensitive.hub.served.clear()
    sensitive.ensure()
    assert sensitive.hub.bytes_served == 0
    assert sensitive.state is ModelState.COMPLETE and is_in_the_clear(tmp_path) == []
    assert content_of(sensitive.sealed.open(sensitive.listing, KEY)) == whole()


def test_m14_a_spoilt_sealed_file_is_found_without_the_key_and_mended(sensitive: Sensitive) -> None:
    sensitive.ensure()
    path = sensitive.target.folder / f"{LARGE}.age"
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ModelError) as caught:
        sensitive.sealed.open(sensitive.listing, KEY)
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL
    private = sensitive.models.resolver.temporary / "private"
    assert [found.name for found in private.iterdir()] == ["guard"]
    verified = Verified.read(sensitive.target.folder)
    assert verified is not None
    right = verify_files("tiny", sensitive.target.folder, verified.listing, verified, PART)
    assert verified.files.keys() - right.keys() == {f"{LARGE}.age"}
    path.unlink()
    sensitive.hub.served.clear()
    sensitive.ensure()
    assert set(sensitive.hub.served) == {LARGE}
    assert content_of(sensitive.sealed.open(sensitive.listing, KEY)) == whole()


def test_m14_one_sealed_file_in_the_place_of_another_is_found(sensitive: Sensitive) -> None:
    """Each is authentic by itself: what counts is what the lock file says of the decrypted one."""
    sensitive.ensure()
    folder = sensitive.target.folder
    (folder / f"{LARGE}.age").write_bytes((folder / "vae/config.json.age").read_bytes())
    with pytest.raises(ModelError) as caught:
        sensitive.sealed.open(sensitive.listing, KEY)
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL


def test_m14_the_wrong_key_is_called_that_and_leaves_nothing(sensitive: Sensitive) -> None:
    sensitive.ensure()
    with pytest.raises(ModelError) as caught:
        sensitive.sealed.open(sensitive.listing, OTHER_KEY)
    assert caught.value.code is ErrorCode.NO_KEY
    private = sensitive.models.resolver.temporary / "private"
    assert [found.name for found in private.iterdir()] == ["guard"]
    assert sensitive.state is ModelState.COMPLETE


def test_m14_a_model_that_becomes_sensitive_is_sealed_and_not_fetched(sensitive: Sensitive, tmp_path: Path) -> None:
    folder = sensitive.models.ensure("tiny")
    (folder / "notes of mine.txt").write_text("mine")
    assert sensitive.state is ModelState.PARTIAL
    sensitive.hub.served.clear()
    sensitive.ensure()
    assert sensitive.hub.bytes_served == 0
    assert sensitive.state is ModelState.COMPLETE and is_in_the_clear(tmp_path) == []
    assert (folder / "notes of mine.txt").read_text() == "mine"


def test_m14_a_revision_that_is_another_is_not_opened(sensitive: Sensitive) -> None:
    sensitive.ensure()
    first, *rest = sensitive.listing.files
    other = Listing("hub", "1", (type(first)(first.path, first.size, "0" * 64), *rest))
    assert sensitive.sealed.look(other).missing == (first.path,)
    with pytest.raises(ModelError) as caught:
        sensitive.sealed.open(other, KEY)
    assert caught.value.code is ErrorCode.MISSING_FILES


def test_m14_there_must_be_room_to_open_it(sensitive: Sensitive) -> None:
    sensitive.ensure()
    with pytest.raises(ModelError) as caught:
        sensitive.sealed.open(sensitive.listing, KEY, margin=1 << 60)
    assert caught.value.code is ErrorCode.NO_SPACE


def test_m9_a_sealed_model_is_removed_whole_and_without_a_key(sensitive: Sensitive) -> None:
    sensitive.ensure()
    remove_model(sensitive.target.folder)
    assert not sensitive.target.folder.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]"])
def test_m14_without_a_sound_note_it_is_not_opened(sensitive: Sensitive, content: bytes) -> None:
    sensitive.ensure()
    (sensitive.target.folder / SEALED_NAME).write_bytes(content)
    assert sensitive.state is not ModelState.COMPLETE
    with pytest.raises(ModelError) as caught:
        sensitive.sealed.open(sensitive.listing, KEY)
    assert caught.value.code is ErrorCode.MISSING_FILES
