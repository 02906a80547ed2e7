"""What a partial file says is there, is there: after any order of parts, any cut, any spoilt byte (M5)."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.models import ErrorCode, ModelError
from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.partial_file import PartialFile
from wan_fixes.models.records import git_hasher, record_of, sha256_of

from .world import memory_folder, some_bytes

PART = 100
CONTENT = some_bytes(5 * PART + 37)
FILE = RemoteFile("a/b.safetensors", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())

write = st.tuples(st.just("write"), st.integers(0, 5))
spoil = st.tuples(st.just("spoil"), st.integers(0, len(CONTENT) - 1))
cut = st.tuples(st.just("cut"), st.integers(0, len(CONTENT)))
grow = st.tuples(st.just("grow"), st.integers(1, len(CONTENT)))
forget = st.tuples(st.just("forget"), st.integers(0, 200))
reopen = st.tuples(st.just("reopen"), st.just(0))


def part_of(number: int) -> bytes:
    return CONTENT[number * PART : (number + 1) * PART]


@given(st.lists(st.one_of(write, write, write, spoil, cut, grow, forget, reopen), max_size=25))
def test_m5_it_ends_with_the_right_content_whatever_happens_between_two_starts(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        target = Path(folder) / FILE.path
        data, state = (target.with_name(target.name + ending) for ending in (".part", ".part.json"))
        partial = PartialFile(target, FILE, PART)
        partial.open()
        for kind, number in steps:
            if kind == "write":
                partial.write_part(number, [part_of(number)[:30], part_of(number)[30:]])
                continue
            partial.close()
            if kind == "spoil":
                content = bytearray(data.read_bytes())
                content[number : number + 1] = bytes(byte ^ 1 for byte in content[number : number + 1])
                data.write_bytes(content)
            elif kind == "cut":
                data.write_bytes(data.read_bytes()[:number])
            elif kind == "grow":
                data.write_bytes(data.read_bytes() + bytes(number))
            elif kind == "forget":
                state.write_bytes(state.read_bytes()[:number])
            partial = PartialFile(target, FILE, PART)
            partial.open()
            written = data.read_bytes()
            there = set(range(partial.count)) - set(partial.missing)
            assert all(written[number * PART : (number + 1) * PART] == part_of(number) for number in there)
        for number in partial.missing:
            partial.write_part(number, [part_of(number)])
        record = partial.finish()
        assert target.read_bytes() == CONTENT
        assert record.sha256 == FILE.sha256 and len(record.parts) == 6
        assert sorted(path.name for path in target.parent.iterdir()) == ["b.safetensors"]


def test_m5_wrong_bytes_never_take_the_name(tmp_path: Path) -> None:
    partial = PartialFile(tmp_path / "x", FILE, PART)
    partial.open()
    for number in partial.missing:
        partial.write_part(number, [bytes(len(part_of(number)))])
    with pytest.raises(ModelError) as caught:
        partial.finish()
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chunks", [[b"x" * (PART + 1)], [b"x" * PART, b"x"], [b"x" * (PART - 1)], []])
def test_m5_a_part_of_another_length_is_none(tmp_path: Path, chunks: list[bytes]) -> None:
    with PartialFile(tmp_path / "x", FILE, PART) as partial:
        with pytest.raises(ModelError) as caught:
            partial.write_part(1, chunks)
        assert caught.value.code is ErrorCode.SIZE_MISMATCH
        assert 1 in partial.missing


def test_m5_parts_of_two_states_are_no_file(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "x", FILE, PART) as partial:
        partial.write_part(0, [part_of(0)], lambda: '"one"')
        with pytest.raises(ModelError) as caught:
            partial.write_part(1, [part_of(1)], lambda: '"other"')
        assert caught.value.code is ErrorCode.SOURCE_CHANGED


def test_m5_an_empty_file_has_no_parts(tmp_path: Path) -> None:
    empty = RemoteFile("x.json", 0, git_id=git_hasher(0).hexdigest())
    with PartialFile(tmp_path / "x.json", empty) as partial:
        assert partial.missing == []
        assert partial.finish().size == 0
    assert (tmp_path / "x.json").read_bytes() == b""


def test_m5_small_files_are_known_by_what_git_calls_them(tmp_path: Path) -> None:
    digest = git_hasher(len(CONTENT))
    digest.update(CONTENT)
    file = RemoteFile("x.json", len(CONTENT), git_id=digest.hexdigest())
    with PartialFile(tmp_path / "x.json", file, PART) as partial:
        for number in partial.missing:
            partial.write_part(number, [part_of(number)])
        assert partial.finish().git_id == file.git_id


def test_m5_a_file_grows_by_what_is_written_alone_and_goes_on_so(tmp_path: Path) -> None:
    data = tmp_path / "x.part"
    with PartialFile(tmp_path / "x", FILE, PART) as partial:
        assert data.stat().st_size == 0
        for number in (3, 0):
            partial.write_part(number, [part_of(number)])
        assert data.stat().st_size == 4 * PART
    with PartialFile(tmp_path / "x", FILE, PART) as partial:
        assert partial.missing == [1, 2, 4, 5]


def test_m5_what_is_taken_of_the_disk_is_known(tmp_path: Path) -> None:
    partial = PartialFile(tmp_path / "x", FILE, PART)
    assert partial.bytes_allocated() == 0
    (tmp_path / "x.part").write_bytes(CONTENT)
    assert (partial.bytes_allocated(), partial.bytes_on_disk()) == (FILE.size, 0)


def begun(target: Path, file: RemoteFile) -> None:
    with PartialFile(target, file, PART, "hub:a/b") as partial:
        partial.write_part(0, [part_of(0)], lambda: '"one"')
        partial.write_part(1, [part_of(1)], lambda: '"one"')


def test_m4_parts_of_another_source_stay_where_a_digest_decides(tmp_path: Path) -> None:
    begun(tmp_path / "x", FILE)
    with PartialFile(tmp_path / "x", FILE, PART, "s3:c") as partial:
        assert (partial.etag, partial.missing) == ("", [2, 3, 4, 5])
        for number in partial.missing:
            partial.write_part(number, [part_of(number)], lambda: '"other"')
        assert partial.finish().sha256 == FILE.sha256


def test_m4_parts_of_two_sources_are_not_mixed_where_nobody_knows_a_digest(tmp_path: Path) -> None:
    file = RemoteFile(FILE.path, FILE.size)
    begun(tmp_path / "x", file)
    with PartialFile(tmp_path / "x", file, PART, "hub:a/b") as partial:
        assert (partial.etag, partial.missing) == ('"one"', [2, 3, 4, 5])
    with PartialFile(tmp_path / "x", file, PART, "s3:c") as partial:
        assert (partial.etag, len(partial.missing)) == ("", 6)


def test_m4_what_an_earlier_version_wrote_goes_on(tmp_path: Path) -> None:
    begun(tmp_path / "x", FILE)
    state = read_json(tmp_path / "x.part.json")
    del state["source"]
    write_json(tmp_path / "x.part.json", state)
    with PartialFile(tmp_path / "x", FILE, PART, "hub:a/b") as partial:
        assert (partial.etag, partial.missing) == ('"one"', [2, 3, 4, 5])


def test_m5_reading_what_is_there_can_be_stopped(tmp_path: Path) -> None:
    begun(tmp_path / "x", FILE)
    (tmp_path / "y").write_bytes(CONTENT)
    stop = threading.Event()
    stop.set()
    partial = PartialFile(tmp_path / "x", FILE, PART, "hub:a/b")
    for read in (
        lambda: partial.open(stop),
        lambda: record_of(tmp_path / "y", PART, stop=stop),
        lambda: sha256_of(tmp_path / "y", stop=stop),
    ):
        with pytest.raises(ModelError) as caught:
            read()
        assert caught.value.code is ErrorCode.STOPPED
    partial.close()
    with PartialFile(tmp_path / "x", FILE, PART, "hub:a/b") as partial:
        assert partial.missing == [2, 3, 4, 5]
