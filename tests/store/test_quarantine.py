"""A bad file stays on the list for as long as its content is bad."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pytest

from wan_fixes.store import Quarantine, QuarantineEntry, content_id


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    return Quarantine(tmp_path / "state" / "quarantine.sqlite")


def test_a_file_that_was_never_added_is_not_on_the_list(quarantine: Quarantine) -> None:
    assert quarantine.reason_for("clip.mp4", "aa") is None
    assert quarantine.reason_for("clip.mp4", None) is None
    assert quarantine.entries() == []


def test_a_bad_file_is_on_the_list_until_its_content_changes(quarantine: Quarantine, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"broken")
    quarantine.add(clip, content_id(clip), "no frame can be read", "RobustVideoLoader")
    assert quarantine.reason_for(clip, content_id(clip)) == "no frame can be read"
    clip.write_bytes(b"mended")
    assert quarantine.reason_for(clip, content_id(clip)) is None
    clip.write_bytes(b"broken")
    assert quarantine.reason_for(clip, content_id(clip)) == "no frame can be read"


def test_a_renamed_file_is_still_bad(quarantine: Quarantine) -> None:
    quarantine.add("a.mp4", "aa", "no frame can be read")
    assert quarantine.reason_for("elsewhere/b.mp4", "aa") == "no frame can be read"


def test_a_file_that_could_not_be_read_is_on_the_list_until_it_can(quarantine: Quarantine) -> None:
    quarantine.add("a.mp4", None, "permission denied")
    assert quarantine.reason_for("a.mp4", None) == "permission denied"
    assert quarantine.reason_for("b.mp4", None) is None
    assert quarantine.reason_for("a.mp4", "aa") is None


def test_the_list_is_kept_and_says_all(quarantine: Quarantine) -> None:
    quarantine.add("a.mp4", "aa", "empty", "probe", fix="copy it again")
    quarantine.add("b.mp4", None, "gone")
    quarantine.add("a.mp4", "aa", "still empty", "probe", fix="delete it")
    quarantine.close()
    entries = quarantine.entries()
    assert {entry.path: (entry.content, entry.reason, entry.fix, entry.module) for entry in entries} == {
        str(Path("a.mp4").absolute()): ("aa", "still empty", "delete it", "probe"),
        str(Path("b.mp4").absolute()): (None, "gone", "", ""),
    }
    assert quarantine.reason_and_fix_for("a.mp4", "aa") == ("still empty", "delete it")
    assert quarantine.reason_and_fix_for("a.mp4", "bb") is None
    assert all(isinstance(entry, QuarantineEntry) and entry.added > 1.7e9 for entry in entries)


def test_forgetting_a_file_forgets_every_name_of_its_content_and_no_other(quarantine: Quarantine) -> None:
    for path, content in (("a", "aa"), ("copy of a", "aa"), ("b", "bb"), ("c", None), ("d", None)):
        quarantine.add(path, content, "bad")
    assert quarantine.forget("a")
    assert quarantine.forget("c")
    assert not quarantine.forget("a")
    assert [Path(entry.path).name for entry in quarantine.entries()] == ["b", "d"]
    assert quarantine.reason_for("copy of a", "aa") is None


@pytest.mark.skipif(os.name == "nt", reason="Windows file names are text")
def test_names_that_are_no_text_and_reasons_that_quote_them_are_kept(quarantine: Quarantine) -> None:
    name = os.fsdecode(b"/clips/\xff\xfe[bold].mp4")
    quarantine.add(name, "aa", f"cannot read {name}")
    assert quarantine.entries()[0].path == name
    assert quarantine.reason_for(name, "aa") == "cannot read /clips/\\udcff\\udcfe[bold].mp4"


def test_a_damaged_list_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.sqlite"
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    quarantine = Quarantine(path)
    quarantine.add("a.mp4", "aa", "bad")
    assert quarantine.reason_for("a.mp4", "aa") == "bad"
    assert len(list(tmp_path.glob("quarantine.sqlite.set-aside-*"))) == 1


def test_threads_share_one_list(quarantine: Quarantine) -> None:
    threads = [
        threading.Thread(target=quarantine.add, args=(f"{number}.mp4", f"{number:02x}", "bad")) for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(quarantine.entries()) == 16


def test_the_list_can_be_sent_to_a_worker(quarantine: Quarantine) -> None:
    quarantine.add("a.mp4", "aa", "bad")
    assert pickle.loads(pickle.dumps(quarantine)).reason_for("a.mp4", "aa") == "bad"
