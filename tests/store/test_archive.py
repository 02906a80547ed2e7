"""A cache in one file: what comes out is what went in, and of a hostile or damaged one only what is sound."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan_fixes.errors import CriticalError, UserError
from wan_fixes.store import SampleStore
from wan_fixes.store.archive import ImportResult, export, import_
from wan_fixes.store.manifest import Manifest, SampleRow, Samples

from .samples_made_up import item_of, key_of, same
from .test_kills import busy, check_all

NUMBERS = range(6)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStore]:
    with SampleStore(tmp_path_factory.mktemp("source") / "cache") as store:
        for number in NUMBERS:
            store.put(key_of(number), item_of(number))
        yield store


@pytest.fixture(scope="module")
def archive(source: SampleStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "cache.tar"
    export({"samples": source}, path)
    return path


def taken_in(path: Path, root: Path) -> tuple[ImportResult, list[int]]:
    """What importing into the folder said, and the numbers that its store `samples` holds then, each sound."""
    opened: dict[str, SampleStore] = {}

    def open_store(name: str) -> SampleStore:
        assert name not in opened
        opened[name] = SampleStore(root / name)
        return opened[name]

    result = import_(path, open_store)
    for store in opened.values():
        store.close()
    if "samples" not in opened:
        return result, []
    with SampleStore(root / "samples") as store:
        assert store.verify() == []
        there = [number for number in range(100) if store.contains(key_of(number))]
        assert store.keys() == sorted(map(key_of, there))
        assert all(same(store.get(key_of(number)), number) for number in there)
        assert list((store.folder / "tmp").iterdir()) == []
    return result, there


def bytes_of(store: SampleStore, number: int) -> bytes:
    return store._path(key_of(number)).read_bytes()


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as file:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            file.addfile(info, io.BytesIO(content))
    return path


def named(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def entry_name(number: int) -> str:
    return f"samples/{key_of(number)}.safetensors"


def test_another_machine_gets_every_entry(source: SampleStore, archive: Path, tmp_path: Path) -> None:
    result, there = taken_in(archive, tmp_path)
    assert (result.imported, result.present, result.refused) == (6, 0, [])
    assert there == list(NUMBERS)
    again, _ = taken_in(archive, tmp_path)
    assert (again.imported, again.present, again.refused) == (0, 6, [])
    assert [path.name for path in archive.parent.iterdir()] == ["cache.tar"], "the temporary file is gone"


def test_any_tar_program_can_list_it(source: SampleStore, archive: Path) -> None:
    with tarfile.open(archive) as file:
        assert file.getnames() == sorted(map(entry_name, NUMBERS))
        assert all(member.isreg() for member in file)


def test_some_keys_alone_can_be_exported(source: SampleStore, tmp_path: Path) -> None:
    path = tmp_path / "some.tar"
    result = export({"samples": source}, path, [key_of(1), key_of(4), key_of(99)])
    assert (result.exported, result.refused) == (2, [])
    assert taken_in(path, tmp_path / "into")[1] == [1, 4]


def test_several_stores_keep_their_places(source: SampleStore, tmp_path: Path) -> None:
    with SampleStore(tmp_path / "text") as text:
        text.put(key_of(50), item_of(50))
        export({"image/samples": source, "text/samples": text}, tmp_path / "all.tar")
    opened = {}

    def open_store(name: str) -> SampleStore:
        opened[name] = SampleStore(tmp_path / "into" / name)
        return opened[name]

    assert import_(tmp_path / "all.tar", open_store).imported == 7
    assert opened["text/samples"].keys() == [key_of(50)]
    assert opened["image/samples"].keys() == source.keys()


def test_a_damaged_entry_is_not_exported_and_named(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "cache") as store:
        for number in NUMBERS:
            store.put(key_of(number), item_of(number))
        damaged = store._path(key_of(3))
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        result = export({"samples": store}, tmp_path / "cache.tar")
    assert result.exported == 5
    [refused] = result.refused
    assert refused.path == str(damaged) and "checksum" in refused.reason
    assert taken_in(tmp_path / "cache.tar", tmp_path / "into")[1] == [0, 1, 2, 4, 5]


def test_a_store_whose_name_no_archive_carries_is_refused(source: SampleStore, tmp_path: Path) -> None:
    for name in ("../samples", "/samples", "a b", "nul", "x" * 90):
        with pytest.raises(UserError, match="cannot carry"):
            export({name: source}, tmp_path / "cache.tar")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_cannot_be_written_leaves_nothing(source: SampleStore, tmp_path: Path) -> None:
    with pytest.raises(CriticalError, match="archive cannot be written"):
        export({"samples": source}, tmp_path / "no such folder" / "cache.tar")
    (tmp_path / "folder.tar" / "in the way").mkdir(parents=True)
    with pytest.raises(CriticalError):
        export({"samples": source}, tmp_path / "folder.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.tar"]


# Hostile members

KEY = key_of(0)
HOSTILE: dict[str, Callable[[bytes], tuple[tarfile.TarInfo, bytes]]] = {
    "another name": lambda entry: (named("samples/readme.txt"), entry),
    "no key": lambda entry: (named("samples/xyz.safetensors"), entry),
    "a key in capitals": lambda entry: (named(f"samples/{KEY.upper()}.safetensors"), entry),
    "a pickle": lambda entry: (named(f"samples/{KEY}.pt"), entry),
    "the parent": lambda entry: (named(f"../samples/{KEY}.safetensors"), entry),
    "the parent within": lambda entry: (named(f"samples/../../{KEY}.safetensors"), entry),
    "this folder": lambda entry: (named(f"./samples/{KEY}.safetensors"), entry),
    "an absolute path": lambda entry: (named(f"/tmp/{KEY}.safetensors"), entry),
    "a drive": lambda entry: (named(f"C:/samples/{KEY}.safetensors"), entry),
    "a backslash": lambda entry: (named(f"..\\{KEY}.safetensors"), entry),
    "a device of Windows": lambda entry: (named(f"nul/{KEY}.safetensors"), entry),
    "a hidden folder": lambda entry: (named(f".git/{KEY}.safetensors"), entry),
    "a control character": lambda entry: (named(f"a\x1b[2J/{KEY}.safetensors"), entry),
    "a link": lambda entry: (named(entry_name(0), type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
    "a hard link": lambda entry: (named(entry_name(0), type=tarfile.LNKTYPE, linkname="/etc/passwd"), b""),
    "a folder": lambda entry: (named(entry_name(0), type=tarfile.DIRTYPE), b""),
    "a pipe": lambda entry: (named(entry_name(0), type=tarfile.FIFOTYPE), b""),
    "a device": lambda entry: (named(entry_name(0), type=tarfile.CHRTYPE, devmajor=1, devminor=5), b""),
    "a sparse file": lambda entry: (named(entry_name(0), type=tarfile.GNUTYPE_SPARSE), b""),
    "a long name": lambda entry: (named("x" * 300 + "/" + entry_name(0)), entry),
    "an entry of another key": lambda entry: (named(entry_name(1)), entry),
    "nothing": lambda entry: (named(entry_name(0)), b""),
    "rubbish": lambda entry: (named(entry_name(0)), random.Random(0).randbytes(5000)),
    "zeros": lambda entry: (named(entry_name(0)), bytes(5000)),
    "a flipped bit in the tensors": lambda entry: (named(entry_name(0)), entry[:-1] + bytes([entry[-1] ^ 1])),
    "a flipped bit in the header": lambda entry: (named(entry_name(0)), entry[:40] + b"?" + entry[41:]),
    "a cut entry": lambda entry: (named(entry_name(0)), entry[:-10]),
    "an entry and more": lambda entry: (named(entry_name(0)), entry + b"more"),
    "an oversized header": lambda entry: (named(entry_name(0)), (1 << 62).to_bytes(8, "little") + entry[8:]),
    "another format version": lambda entry: (named(entry_name(0)), entry.replace(b'"version":"1"', b'"version":"9"')),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_sound_entry_is_refused_and_named_and_the_rest_taken_in(
    source: SampleStore, tmp_path: Path, what: str
) -> None:
    path = write_tar(
        tmp_path / "hostile.tar",
        (named(entry_name(4)), bytes_of(source, 4)),
        HOSTILE[what](bytes_of(source, 0)),
        (named(entry_name(5)), bytes_of(source, 5)),
    )
    root = tmp_path / "deep" / "into"
    result, there = taken_in(path, root)
    assert there == [4, 5]
    assert result.refused and all(refused.path == str(path) and refused.reason for refused in result.refused)
    assert "\x1b" not in str(result.refused[0])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["deep", "hostile.tar"]
    assert [entry.name for entry in root.parent.iterdir()] == ["into"]
    assert [entry.name for entry in root.iterdir()] == ["samples"]


def test_an_oversized_member_is_refused_without_writing_or_reading_it(source: SampleStore, tmp_path: Path) -> None:
    """A sparse file of 1 TB, which takes no room, must not become one that does."""
    path = tmp_path / "bomb.tar"
    size = 1 << 40
    info = named(entry_name(0))
    info.size = size
    first = named(entry_name(4))
    first.size = len(bytes_of(source, 4))
    with path.open("wb") as file:
        file.write(first.tobuf(tarfile.GNU_FORMAT) + bytes_of(source, 4) + bytes(-first.size % 512))
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        try:
            file.truncate(file.tell() + size + 1024)
        except OSError:
            pytest.skip("this file system has no sparse files of that size")
    result, there = taken_in(path, tmp_path / "into")
    assert there == [4]
    assert [refused.reason.split(":")[0] for refused in result.refused] == [repr(entry_name(0))]


def test_an_archive_names_only_so_many_stores(source: SampleStore, tmp_path: Path) -> None:
    content = bytes_of(source, 0)
    path = write_tar(tmp_path / "many.tar", *((named(f"s{number}/{KEY}.safetensors"), content) for number in range(70)))
    result, _ = taken_in(path, tmp_path / "into")
    assert (result.imported, len(result.refused)) == (64, 6)
    assert len(list((tmp_path / "into").iterdir())) == 64


@pytest.mark.parametrize("content", [b"no archive at all" * 100, b"PK\x03\x04" + bytes(1000), b"short"])
def test_what_is_no_tar_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(UserError, match="it is no tar") as caught:
        import_(path, lambda name: pytest.fail("a store was opened"))
    assert caught.value.path == str(path)
    with pytest.raises(UserError, match="No such file"):
        import_(tmp_path / "missing", lambda name: pytest.fail("a store was opened"))


def test_what_lies_behind_the_end_is_named(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    (tmp_path / "early.tar").write_bytes(bytes(512) + content)
    result, there = taken_in(tmp_path / "early.tar", tmp_path / "into")
    assert there == []
    assert "ends before it" in result.refused[0].reason
    (tmp_path / "padded.tar").write_bytes(content + bytes(5000))
    result, there = taken_in(tmp_path / "padded.tar", tmp_path / "into")
    assert (there, result.refused) == (list(NUMBERS), [])


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 0.999])
def test_of_a_truncated_archive_what_is_whole_is_taken_in(archive: Path, tmp_path: Path, at: float) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * at)])
    result, there = taken_in(cut, tmp_path / "into")
    assert result.imported == len(there) <= 6
    assert result.refused


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_in_an_archive_only_sound_entries_are_taken_in(
    archive: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(archive.read_bytes())
    kinds = data.draw(st.lists(st.sampled_from(["flip", "insert", "delete", "header"]), min_size=1, max_size=4))
    for kind in kinds:
        start = data.draw(st.integers(0, len(content)))
        if kind == "insert":
            content[start:start] = data.draw(st.binary(min_size=1, max_size=600))
        elif kind == "delete":
            del content[start : start + data.draw(st.integers(1, 2000))]
        else:
            if kind == "header":  # where it hurts: in the 512 bytes before some member
                found = [at for at in range(0, len(content), 512) if content[at : at + 8] == b"samples/"]
                start = data.draw(st.sampled_from(found or [0])) + data.draw(st.integers(0, 511))
            if start < len(content):
                content[start] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("changed")
    path = folder / "changed.tar"
    path.write_bytes(content)
    try:
        result, there = taken_in(path, folder / "into")
    except UserError as error:
        assert "no tar" in error.reason
        return
    assert set(there) <= set(NUMBERS)
    assert len(there) <= result.imported <= 6
    assert result.imported == 6 or result.refused or "delete" in kinds, "a whole member may have been cut out"
    assert {entry.name for entry in folder.iterdir()} <= {"changed.tar", "into"}


# Kills

IMPORTER = """
import sys
from pathlib import Path
from wan_fixes.store import SampleStore
from wan_fixes.store.archive import import_
print("open", flush=True)
import_(Path(sys.argv[1]), lambda name: SampleStore(Path(sys.argv[2]) / name))
"""


@pytest.mark.parametrize("turn", range(4))
def test_a_killed_import_leaves_a_sound_store_and_the_next_one_goes_on(tmp_path: Path, turn: int) -> None:
    with SampleStore(tmp_path / "source") as store:
        for number in range(60):
            store.put(key_of(number), item_of(number))
        export({"samples": store}, tmp_path / "cache.tar")
    child = subprocess.Popen(
        [sys.executable, "-c", IMPORTER, str(tmp_path / "cache.tar"), str(tmp_path / "into")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "open\n"
    busy(0.02 + 0.03 * turn)
    child.kill()
    child.communicate()
    check_all(tmp_path / "into" / "samples", set())
    for path in (tmp_path / "into" / "samples" / "v1" / "tmp").iterdir():
        os.utime(path, (1, 1))  # old enough that its writer is known to be gone
    result, there = taken_in(tmp_path / "cache.tar", tmp_path / "into")
    assert there == list(range(60))
    assert result.imported + result.present == 60 and result.refused == []


# Lists of samples


IDENTITY = "0123456789abcdef" * 2


def listed(*names: str, key: int = 0, state: str = "as it was") -> Manifest:
    rows = [SampleRow(name, 0, state, 1, {0: key_of(key)}) for name in names]
    return Manifest([Samples.of(rows)], [""], [""], ["cats"], [False], {key_of(key): (1, "{}")}, "", {"00": 1})


def names_in(root: Path) -> list[str]:
    with SampleStore(root) as store:
        found = store.read_manifest(IDENTITY)
    return [] if found is None else found.concepts[0].names


def test_lists_of_samples_travel_and_tell_nothing_of_entries(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "here") as store:
        store.put(key_of(0), item_of(0))
        store.write_manifest(IDENTITY, listed("a.mp4", "deep/b.mp4"))
        assert export({"image/samples": store}, tmp_path / "cache.tar").lists == 1
    result, _ = taken_in(tmp_path / "cache.tar", tmp_path / "there")
    assert (result.imported, result.lists, result.refused) == (1, 1, [])
    with SampleStore(tmp_path / "there" / "image/samples") as store:
        found = store.read_manifest(IDENTITY)
    assert found is not None
    assert found.concepts[0].names == ["a.mp4", "deep/b.mp4"]
    assert (found.labels, found.carried, found.entries, found.folder_times) == (["cats"], [True], {}, {})


def test_a_list_that_is_there_keeps_its_samples_and_gets_the_others(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "here") as store:
        store.write_manifest(IDENTITY, listed("a.mp4", "b.mp4"))
        export({"samples": store}, tmp_path / "cache.tar")
    with SampleStore(tmp_path / "there" / "samples") as store:
        store.write_manifest(IDENTITY, listed("b.mp4", "c.mp4", state="as it is here"))
    taken_in(tmp_path / "cache.tar", tmp_path / "there")
    with SampleStore(tmp_path / "there" / "samples") as store:
        found = store.read_manifest(IDENTITY)
    assert found is not None
    assert dict(zip(found.concepts[0].names, found.concepts[0].states, strict=True)) == {
        "a.mp4": "as it was",
        "b.mp4": "as it is here",
        "c.mp4": "as it is here",
    }


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a.mp4",
        "a/../../b.mp4",
        "C:/a.mp4",
        "c:a.mp4",
        "a\\..\\b.mp4",
        "a//b.mp4",
        "./a.mp4",
        "",
        "a\0b.mp4",
    ],
)
def test_a_list_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "cache.tar", (named(f"samples/manifests/{IDENTITY}.json"), listed(name).to_bytes()))
    result, _ = taken_in(path, tmp_path / "there")
    assert (result.lists, len(result.refused)) == (0, 1)
    assert names_in(tmp_path / "there" / "samples") == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data.replace(b"a.mp4", b"b.mp4"),
        lambda data: b"",
        lambda data: signed(data, b'"chunks":[0]', b'"chunks":["0"]'),
        lambda data: signed(data, b'"chunks":[0]', b'"chunks":[]'),
        lambda data: signed(data, b'"chunks":[0]', b'"chunks":[-1]'),
        lambda data: signed(data, key_of(0).encode(), b"../../x"),
        lambda data: signed(data, b'"format":3', b'"format":2'),
        lambda data: signed(data, data.partition(b"\n")[2], b"[" * 100_000),
        lambda data: signed(data, data.partition(b"\n")[2], b"null"),
    ],
)
def test_a_damaged_or_hostile_list_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    content = spoil(listed("a.mp4").to_bytes())
    path = write_tar(tmp_path / "cache.tar", (named(f"samples/manifests/{IDENTITY}.json"), content))
    result, _ = taken_in(path, tmp_path / "there")
    assert (result.lists, len(result.refused)) == (0, 1)
    assert "manifests" in result.refused[0].reason


@pytest.mark.parametrize(
    "name", [f"../samples/manifests/{IDENTITY}.json", f"samples/{IDENTITY}.json", "samples/manifests/x.json", "x.json"]
)
def test_a_list_in_another_place_is_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "cache.tar", (named(name), listed("a.mp4").to_bytes()))
    result, _ = taken_in(path, tmp_path / "there")
    assert (result.lists, len(result.refused)) == (0, 1)


def signed(data: bytes, old: bytes, new: bytes) -> bytes:
    """With another content, and a checksum that is right for it."""
    body = data.partition(b"\n")[2].replace(old, new)
    return xxhash.xxh3_128_hexdigest(body).encode("ascii") + b"\n" + body
