"""Content ids follow the bytes and nothing else; keys follow the values and nothing else."""

from __future__ import annotations

import json
import os
import pickle
import threading
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import SampleError
from wan_fixes.store import keys
from wan_fixes.store.keys import ContentIds, content_id, make_key

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10)
parts = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=5,
    ),
    max_size=4,
)
quick = settings(max_examples=100, deadline=None)


def old_file(path: Path, content: bytes, *, mtime: int = 1_600_000_000) -> Path:
    """A file that has not changed for years, as far as its time tells."""
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose bytes are read."""
    names: list[str] = []
    real = keys._hash

    def counting(path: Path) -> Any:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(keys, "_hash", counting)
    return names


def shuffled(value: Any) -> Any:
    """The same value with every dict in reverse order and every list a tuple."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(list(value))}
    return tuple(map(shuffled, value)) if isinstance(value, list) else value


@quick
@given(parts)
def test_key_does_not_depend_on_the_order_of_names_nor_on_list_or_tuple(value: dict[str, Any]) -> None:
    assert make_key(value) == make_key(shuffled(value))


@quick
@given(parts)
def test_key_survives_a_journey_through_a_json_file(value: dict[str, Any]) -> None:
    assert make_key(json.loads(json.dumps(value))) == make_key(value)


@quick
@given(parts, parts)
def test_different_values_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)) == (make_key(one) == make_key(other))


def test_kinds_that_python_calls_equal_have_different_keys() -> None:
    values: list[Any] = [1, 1.0, True, "1", None, 0, 0.0, False, "", [], {}, [1], float("inf"), "None"]
    assert len({make_key({"x": value}) for value in values}) == len(values)


def test_nested_values_do_not_run_together() -> None:
    assert len({make_key({"a": value}) for value in ([[1], 2], [[1, 2]], [1, [2]], [1, 2], {"1": 2})}) == 5


def test_a_key_is_the_same_on_every_machine_and_day() -> None:
    assert (
        make_key({"frames": 81, "size": (480, 832), "scale": 0.1, "mask": None}) == "215aa370b6509d687ac70b98add38656"
    )


class Mode(str, Enum):
    T2V = "t2v"


@pytest.mark.parametrize(
    "wrong", [b"x", {1}, object(), Path("x"), np.float64(1), np.zeros(2), Mode.T2V, {1: "x"}, {("a",): 1}]
)
def test_a_value_without_canonical_json_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"key\['settings'\]\[1\]\['vae'\]"):
        make_key({"settings": [0, {"vae": wrong}]})


@given(st.binary(max_size=100))
def test_content_id_is_the_hash_of_the_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("content") / "clip"
    path.write_bytes(content)
    assert content_id(path) == xxhash.xxh3_128_hexdigest(content)


def test_content_longer_than_a_chunk_is_hashed_to_its_end(tmp_path: Path) -> None:
    content = os.urandom(keys.CHUNK_BYTES * 2 + 17)
    (tmp_path / "clip").write_bytes(content)
    assert content_id(tmp_path / "clip") == xxhash.xxh3_128_hexdigest(content)


def test_an_unchanged_file_is_hashed_once_even_across_restarts(tmp_path: Path, hashed: list[str]) -> None:
    clip = old_file(tmp_path / "clip.mp4", b"frames")
    first = ContentIds(tmp_path / "ids.sqlite")
    assert first.of(clip) == first.of(str(clip)) == content_id(clip)
    first.close()
    hashed.clear()
    assert ContentIds(tmp_path / "ids.sqlite").of(clip) == xxhash.xxh3_128_hexdigest(b"frames")
    assert hashed == []


@pytest.mark.parametrize("how", ["edited", "replaced by one of the same size and time", "touched"])
def test_a_file_that_may_have_changed_is_hashed_again(tmp_path: Path, hashed: list[str], how: str) -> None:
    clip = old_file(tmp_path / "clip.mp4", b"frames")
    ids = ContentIds(tmp_path / "ids.sqlite")
    ids.of(clip)
    if how == "edited":
        old_file(clip, b"FRAMES", mtime=1_600_000_001)
    elif how == "touched":
        os.utime(clip, (1_600_000_009, 1_600_000_009))
    else:
        old_file(tmp_path / "other", b"FRAMES").replace(clip)
    assert ids.of(clip) == xxhash.xxh3_128_hexdigest(clip.read_bytes())
    assert hashed == ["clip.mp4", "clip.mp4"]


def test_a_file_changed_within_one_tick_of_the_clock_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"frames")
    state = clip.stat()
    ids = ContentIds(tmp_path / "ids.sqlite")
    ids.of(clip)
    clip.write_bytes(b"FRAMES")
    os.utime(clip, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert ids.of(clip) == xxhash.xxh3_128_hexdigest(b"FRAMES")


def test_copies_and_renamed_files_share_an_id(tmp_path: Path) -> None:
    ids = ContentIds(tmp_path / "ids.sqlite")
    clip = old_file(tmp_path / "a.mp4", b"frames")
    before = ids.of(clip)
    copy = old_file(tmp_path / "b.mp4", b"frames", mtime=1_500_000_000)
    assert ids.of(copy) == ids.of(clip.rename(tmp_path / "c.mp4")) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows file names are text")
def test_a_name_that_is_no_text_is_remembered_too(tmp_path: Path, hashed: list[str]) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"clip\xff\xfe.mp4")
    try:
        clip = old_file(Path(os.fsdecode(name)), b"frames")
    except OSError:
        pytest.skip("this file system takes text names only")
    ids = ContentIds(tmp_path / "ids.sqlite")
    assert ids.of(clip) == ids.of(clip) == xxhash.xxh3_128_hexdigest(b"frames")
    assert len(hashed) == 1


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_cannot_be_read_is_named_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "clip.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        os.mkfifo(path)
    with pytest.raises(SampleError) as caught:
        ContentIds(tmp_path / "ids.sqlite").of(path)
    assert caught.value.path == str(path)
    assert caught.value.reason and caught.value.fix


def test_a_file_that_grows_while_it_is_read_gets_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = old_file(tmp_path / "clip.mp4", b"frames")

    class GrowingHash:
        def update(self, chunk: bytes) -> None:
            with clip.open("ab") as file:
                file.write(b"!" if clip.stat().st_size < 20 else b"")

    monkeypatch.setattr(keys.xxhash, "xxh3_128", GrowingHash)
    with pytest.raises(SampleError, match="changed while it was read"):
        content_id(clip)


def test_threads_share_one_memory(tmp_path: Path) -> None:
    clips = [old_file(tmp_path / f"{number}.mp4", bytes([number])) for number in range(20)]
    ids = ContentIds(tmp_path / "ids.sqlite")
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append([ids.of(clip) for clip in clips])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[xxhash.xxh3_128_hexdigest(bytes([number])) for number in range(20)]] * 8


def test_a_damaged_memory_is_set_aside_and_started_anew(tmp_path: Path) -> None:
    clip = old_file(tmp_path / "clip.mp4", b"frames")
    (tmp_path / "ids.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    assert ContentIds(tmp_path / "ids.sqlite").of(clip) == xxhash.xxh3_128_hexdigest(b"frames")
    assert len(list(tmp_path.glob("ids.sqlite.set-aside-*"))) == 1


def test_the_memory_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    clip = old_file(tmp_path / "clip.mp4", b"frames")
    sent = pickle.loads(pickle.dumps(ContentIds(tmp_path / "ids.sqlite")))
    assert sent.of(clip) == xxhash.xxh3_128_hexdigest(b"frames")
