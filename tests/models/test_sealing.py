"""What is sealed opens with its key alone, and whole or not at all (M14)."""

from __future__ import annotations

import shutil
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan_fixes.models import ErrorCode, ModelError
from wan_fixes.models.sealing import encryption_key, new_key, seal, unseal

from .world import memory_folder, some_bytes

KEY = new_key()
OTHER_KEY = new_key()
CHUNK = 64 << 10
SEALED_CHUNK = CHUNK + 16


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
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
