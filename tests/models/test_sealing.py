"""What is sealed opens with its key alone, whole or not at all, and for no longer than a process lives (M14)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan_fixes.models import ErrorCode, ModelError, ModelResolver, ModelState
from wan_fixes.models.agreement import with_digests
from wan_fixes.models.fetching import Watch, fetch_files
from wan_fixes.models.gc import remove_model
from wan_fixes.models.listing import Listing
from wan_fixes.models.private_folder import PrivateFolders, private_place, remove
from wan_fixes.models.sealed_model import SEALED_NAME, SealedModel
from wan_fixes.models.sealing import encryption_key, new_key, seal, unseal
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.verifying import verify_files

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import NEEDED, PART, content_of, ensurer, memory_folder, some_bytes

KEY = new_key()
OTHER_KEY = new_key()
CHUNK = 64 << 10
SEALED_CHUNK = CHUNK + 16
CHECKOUT = str(Path(__file__).resolve().parent.parent.parent)


def sealed_bytes(content: bytes) -> bytes:
    sealed: bytes = pyrage.encrypt(content, [pyrage.x25519.Identity.from_str(KEY).to_public()])
    return sealed


def open_bytes(folder: Path, sealed: bytes, key: str = KEY) -> bytes | ModelError:
    """What is in it, or why it does not open; nothing else may be there then."""
    source, target = folder / "sealed.age", folder / "opened" / "file"
    source.write_bytes(sealed)
    shutil.rmtree(target.parent, ignore_errors=True)
    try:
        unseal(source, target, key)
    except ModelError as error:
        assert not target.parent.exists() or list(target.parent.iterdir()) == []
        return error
    return target.read_bytes()


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_m14_what_is_sealed_opens_again(tmp_path: Path, count: int) -> None:
    content = some_bytes(count)
    (tmp_path / "file").write_bytes(content)
    seal(tmp_path / "file", tmp_path / "there" / "file.age", KEY)
    sealed = (tmp_path / "there" / "file.age").read_bytes()
    assert open_bytes(tmp_path, sealed) == content
    assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(KEY)]) == content
    assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file.age"]
    if count > 100:
        assert content[:100] not in sealed


def test_m14_another_key_opens_nothing(tmp_path: Path) -> None:
    found = open_bytes(tmp_path, sealed_bytes(b"weights"), OTHER_KEY)
    assert isinstance(found, ModelError) and found.code is ErrorCode.NO_KEY


SPOILT = (ErrorCode.CHECKSUM_FAIL, ErrorCode.NO_KEY)
CONTENT = some_bytes(3 * CHUNK + 77)
SEALED = sealed_bytes(CONTENT)
HEAD = len(SEALED) - (len(CONTENT) + 4 * 16)  # the lines of the head and the nonce
often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@often
@given(at=st.integers(0, len(SEALED) - 1), flip=st.integers(1, 255))
def test_m14_a_flipped_bit_is_found(tmp_path: Path, at: int, flip: int) -> None:
    spoilt = bytearray(SEALED)
    spoilt[at] ^= flip
    found = open_bytes(tmp_path, bytes(spoilt))
    assert isinstance(found, ModelError) and found.code in SPOILT
    if at >= HEAD:
        assert found.code is ErrorCode.CHECKSUM_FAIL


@often
@given(stop=st.one_of(st.integers(0, len(SEALED) - 1), st.sampled_from([HEAD + n * SEALED_CHUNK for n in range(4)])))
def test_m14_what_is_cut_off_is_missed(tmp_path: Path, stop: int) -> None:
    found = open_bytes(tmp_path, SEALED[:stop])
    assert isinstance(found, ModelError) and found.code in SPOILT


@often
@given(more=st.binary(min_size=1, max_size=SEALED_CHUNK + 1), at_a_chunk=st.booleans())
def test_m14_what_is_added_is_found(tmp_path: Path, more: bytes, at_a_chunk: bool) -> None:
    sealed = sealed_bytes(CONTENT[: 2 * CHUNK]) if at_a_chunk else SEALED
    found = open_bytes(tmp_path, sealed + more)
    assert isinstance(found, ModelError) and found.code is ErrorCode.CHECKSUM_FAIL


@often
@given(order=st.lists(st.integers(0, 3), min_size=1, max_size=6).filter(lambda order: order != [0, 1, 2, 3]))
def test_m14_chunks_in_another_order_are_found(tmp_path: Path, order: list[int]) -> None:
    chunks = [SEALED[HEAD + n * SEALED_CHUNK : HEAD + (n + 1) * SEALED_CHUNK] for n in range(4)]
    assert b"".join(chunks) == SEALED[HEAD:]
    found = open_bytes(tmp_path, SEALED[:HEAD] + b"".join(chunks[n] for n in order))
    assert isinstance(found, ModelError) and found.code is ErrorCode.CHECKSUM_FAIL


def test_m14_chunks_of_another_file_are_found(tmp_path: Path) -> None:
    other = sealed_bytes(some_bytes(3 * CHUNK + 77, 5))
    mixed = SEALED[: HEAD + SEALED_CHUNK] + other[len(other) - len(SEALED) + HEAD + SEALED_CHUNK :]
    found = open_bytes(tmp_path, mixed)
    assert isinstance(found, ModelError) and found.code is ErrorCode.CHECKSUM_FAIL


def test_m14_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    with tempfile.TemporaryDirectory(dir=memory_folder() or tmp_path) as name:
        folder = Path(name)
        for size in (8 << 20, 64 << 20):
            with (folder / "file").open("wb") as file:
                file.truncate(size)
            tracemalloc.start()
            seal(folder / "file", folder / "file.age", KEY)
            unseal(folder / "file.age", folder / "opened", KEY)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert (folder / "opened").stat().st_size == size
    assert peaks[1] < peaks[0] + (256 << 10) and peaks[1] < 2 << 20


@pytest.mark.parametrize("work", [seal, unseal])
def test_m14_what_ends_it_leaves_nothing_and_is_raised_as_it_is(tmp_path: Path, work: Any) -> None:
    (tmp_path / "file").write_bytes(CONTENT if work is seal else SEALED)
    read = 0

    def interrupt(count: int) -> None:
        nonlocal read
        read += count
        if read > 2 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "file", tmp_path / "there" / "target", KEY, interrupt)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("work", [seal, unseal])
def test_m14_a_full_disk_is_called_that(tmp_path: Path, work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(CONTENT if work is seal else SEALED)
    touch = Path.touch

    def on_full_disk(self: Path, **options: Any) -> None:
        self.symlink_to("/dev/full") if self.name.endswith(".tmp") else touch(self, **options)

    monkeypatch.setattr(Path, "touch", on_full_disk)
    with pytest.raises(ModelError) as caught:
        work(tmp_path / "file", tmp_path / "there" / "target", KEY)
    assert caught.value.code is ErrorCode.NO_SPACE
    assert list((tmp_path / "there").iterdir()) == []


def test_m14_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.age") as caught:
        unseal(tmp_path / "absent.age", tmp_path / "target", KEY)
    assert caught.value.code is ErrorCode.MISSING_FILES
    assert list(tmp_path.iterdir()) == []


def test_m14_without_a_key_nothing_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_MODELS_KEYRING", "0")
    monkeypatch.delenv("WAN_MODELS_ENCRYPTION_KEY", raising=False)
    with pytest.raises(ModelError, match="wan models key new") as caught:
        encryption_key()
    assert caught.value.code is ErrorCode.NO_KEY
    monkeypatch.setenv("WAN_MODELS_ENCRYPTION_KEY", KEY)
    assert encryption_key() == KEY
    monkeypatch.setenv("WAN_MODELS_ENCRYPTION_KEY", KEY[:-1])
    with pytest.raises(ModelError) as caught:
        encryption_key()
    assert caught.value.code is ErrorCode.NO_KEY and KEY[:-1] not in str(caught.value)


# Private folders


def test_m14_a_private_folder_is_the_user_s_alone_and_goes(tmp_path: Path) -> None:
    folders = PrivateFolders(ModelResolver(tmp_path))
    folder = folders.make()
    assert folder.parent == tmp_path / ".tmp" / "private" and folder.name.startswith(f"{os.getpid()}-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "file").write_bytes(b"weights")
    assert folders.sweep() == ()
    assert (folder / "file").exists()
    remove(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["guard"]


def test_m14_on_windows_it_is_in_the_profile(tmp_path: Path) -> None:
    place = private_place(ModelResolver(tmp_path), windows=True)
    assert place.is_relative_to(Path.home()) and not place.is_relative_to(tmp_path)


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from wan_fixes.models import ModelResolver
from wan_fixes.models.private_folder import PrivateFolders
folder = PrivateFolders(ModelResolver(Path(sys.argv[2]))).make()
(folder / "file").write_bytes(b"weights")
print(folder, flush=True)
if sys.argv[3] == "stay":
    time.sleep(60)
"""


@contextlib.contextmanager
def owner(root: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a private folder."""
    arguments = [sys.executable, "-c", CHILD, CHECKOUT, str(root), how]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child, Path(child.stdout.readline().strip())
    finally:
        child.kill()
        child.communicate()


def test_m14_a_private_folder_ends_with_its_process(tmp_path: Path) -> None:
    with owner(tmp_path, "leave") as (child, folder):
        assert child.wait(30) == 0
        assert not folder.exists()


def test_m14_what_a_killed_process_left_is_swept_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    folders = PrivateFolders(ModelResolver(tmp_path))
    with owner(tmp_path, "stay") as (child, folder), owner(tmp_path, "stay") as (_, of_the_living):
        assert folders.sweep() == ()
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        assert (folder / "file").exists()
        assert folders.sweep() == (folder,)
        assert not folder.exists() and (of_the_living / "file").exists()
        assert folders.sweep() == ()


def test_m14_a_fork_leaves_the_folder_to_its_owner(tmp_path: Path) -> None:
    folder = PrivateFolders(ModelResolver(tmp_path)).make()
    program = os.fork()
    if program == 0:
        import atexit

        atexit._run_exitfuncs()
        os._exit(0)
    os.waitpid(program, 0)
    assert folder.is_dir()
    remove(folder)


# Sensitive models


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
    from wan_fixes.models.installed import Verified

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
    one, other = (sensitive.target.folder / f"{name}/config.json.age" for name in ("vae", "transformer"))
    large = sensitive.target.folder / f"{LARGE}.age"
    large.write_bytes(one.read_bytes())
    with pytest.raises(ModelError) as caught:
        sensitive.sealed.open(sensitive.listing, KEY)
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL
    assert other.exists()


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
