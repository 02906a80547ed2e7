"""Samples that failed for one cause are one pattern, whatever numbers and names their reasons hold."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.health import SampleRecord
from wan_fixes.health.patterns import find_patterns, formats_of, what_first, with_folder_sizes


def record(path: str, reason: str, fix: str = "", module: str = "media", status: Any = "skipped") -> SampleRecord:
    return SampleRecord(path, status, module, reason, fix, "SampleError", 0.0)


def reasons(*texts: str) -> list[SampleRecord]:
    return [record(f"/clips/{number}.mp4", text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "cause"),
    [
        (("the file is empty", "the file is empty"), "the file is empty"),
        (("frame 12 at 0.5 s is damaged", "frame 80 at 3.25 s is damaged"), "frame 12-80 at 0.5-3.25 s is damaged"),
        (("1 frame at 16 fps, 49 needed", "30 frames at 16 fps, 49 needed"), "1-30 frames at 16 fps, 49 needed"),
        (("byte 5 is 0xf6", "byte 5 is 0xe4"), "byte 5 is …"),
        (("9000x9000 pixels, at most 100", "10000x8000 pixels, at most 100"), "… pixels, at most 100"),
        (("a link to /a/b.mp4, which is gone", "a link to /c/d.mp4, which is gone"), "a link to …, which is gone"),
        (("other.mp4 is of another size", "some.mp4 is of another size"), "… is of another size"),
        (("loss -2 was found", "loss 3.5 was found"), "loss -2 to 3.5 was found"),
    ],
)
def test_reasons_that_differ_in_numbers_and_names_are_one_cause(texts: tuple[str, ...], cause: str) -> None:
    (pattern,) = find_patterns(reasons(*texts))
    assert (pattern.cause, pattern.count) == (cause, len(texts))


@pytest.mark.parametrize(
    "texts",
    [
        ("the file is empty", "the file is large"),
        ("it is not utf-8", "it is not utf-16"),
        ("unknown codec h264", "unknown codec h265"),
        ("'image' is None", "'mask' is None"),
    ],
)
def test_words_that_differ_make_another_cause(texts: tuple[str, ...]) -> None:
    assert len(find_patterns(reasons(*texts))) == len(texts)


def test_a_samples_own_name_is_no_part_of_the_cause() -> None:
    names = ("dance.mp4", "a (1).mp4", "7.mp4")
    records = [record(f"/clips/{name}", f"{name} cannot be opened") for name in names]
    assert [pattern.count for pattern in find_patterns(records)] == [3]
    records = [record(f"/clips/{name}", f"{name[:-4]}.txt: it is not UTF-8") for name in names]
    assert [pattern.cause for pattern in find_patterns(records)] == ["its caption: it is not UTF-8"]


def test_what_was_left_out_comes_before_warnings_and_many_before_few() -> None:
    records = [record(f"/{n}.mp4", "few") for n in range(2)] + [record(f"/{n}.mov", "many") for n in range(5)]
    records += [record(f"/{n}.mkv", "a warning", status="warning") for n in range(9)]
    found = [(pattern.status, pattern.cause, pattern.count) for pattern in find_patterns(records)]
    assert found == [("left out", "many", 5), ("left out", "few", 2), ("warning", "a warning", 9)]


def test_several_warnings_of_one_cause_about_a_sample_are_about_one_sample() -> None:
    records = [record("/a.mp4", f"chunk {number} repeats frames", status="warning") for number in range(4)]
    (pattern,) = find_patterns(records)
    assert (pattern.count, pattern.records) == (1, 4)


def test_a_folder_that_is_bad_as_a_whole_is_told_from_one_with_a_few() -> None:
    records = [record(f"/clips/phone/{n}.mov", "damaged") for n in range(12)]
    records += [record(f"/clips/web/{n}.mp4", "damaged") for n in range(2)]
    pattern = with_folder_sizes(find_patterns(records)[0], {"/clips/phone": 12, "/clips/web": 40})
    assert pattern.common_folder == str(Path("/clips"))
    assert pattern.folders == (("/clips/phone", 12, 12), ("/clips/web", 2, 40))
    assert pattern.suffixes == ((".mov", 12), (".mp4", 2))
    gone = with_folder_sizes(pattern, {"/clips/phone": 3})
    assert gone.folders[0].of == 12, "of files that are gone more are bad than lie there"


def test_what_all_share_is_said_and_nothing_else() -> None:
    phone = [record(f"/clips/phone/{n}.mov", "damaged", "re-encode") for n in range(12)]
    (pattern,) = find_patterns(phone)
    all_hevc = {f"/clips/phone/{n}.mov": "hevc in mov" for n in range(12)}
    assert what_first(pattern, all_hevc) == "all 12 lie in phone and are hevc in mov: re-encode"
    assert formats_of(pattern, all_hevc) == [("hevc in mov", 12)]
    some_hevc = {path: text for path, text in all_hevc.items() if path.endswith("3.mov")}
    assert what_first(pattern, some_hevc) == "all 12 lie in phone and are .mov files: re-encode"
    mixed = all_hevc | {"/clips/phone/0.mov": "h264 in mov"}
    assert "hevc" not in what_first(pattern, mixed)
    (pattern,) = find_patterns([*phone, record("/clips/web/a.mp4", "damaged", "re-encode")])
    assert what_first(pattern) == "re-encode"
    (pattern,) = find_patterns(phone[:1])
    assert what_first(pattern) == "re-encode"


def test_numbers_in_what_helps_are_a_range_too() -> None:
    records = [record(f"/{n}.mp4", f"{n} frames, 49 needed", f"lower frames to {n}") for n in (9, 17, 33)]
    assert find_patterns(records)[0].fix == "lower frames to 9-33"


def test_what_is_known_of_quarantined_files_gives_way_to_what_helps() -> None:
    records = [record("/a.mp4", "damaged", "re-encode")]
    records += [record(f"/{n}.mp4", "damaged", "replace the file", "quarantine") for n in range(5)]
    (pattern,) = find_patterns(records)
    assert (pattern.fix, pattern.remembered, pattern.modules) == ("re-encode", 5, ("quarantine", "media"))
    (pattern,) = find_patterns(records[1:])
    assert pattern.fix == "replace the file"


def test_examples_come_from_all_over() -> None:
    records = [record(f"/clips/{folder}/{n}.mp4", "damaged") for folder in "abc" for n in range(10)]
    (pattern,) = find_patterns(records)
    assert {path.split("/")[2] for path in pattern.examples(3)} == {"a", "b", "c"}
    assert pattern.examples(100) == pattern.paths


TEXTS = st.one_of(
    st.sampled_from(
        ["the file is empty", "frame 3 at 0.5 s", "frame 12 at 3 s", "1 frame, 9 needed", "5 frames, 9 needed"]
    ),
    st.text(max_size=30),
)
RECORDS = st.lists(
    st.builds(
        SampleRecord,
        path=st.one_of(st.from_regex(r"/[ab]/[0-9]{1,2}\.(mp4|mov)", fullmatch=True), st.text(max_size=12)),
        status=st.sampled_from(["skipped", "failed", "warning"]),
        module=st.sampled_from(["media", "captions", "quarantine", ""]),
        reason=TEXTS,
        fix=TEXTS,
        kind=st.sampled_from(["SampleError", "warning", ""]),
        time=st.just(0.0),
    ),
    max_size=25,
    unique_by=lambda made: (made.path, made.status == "warning" and made.reason),
)


@given(RECORDS)
def test_every_bad_sample_is_in_exactly_one_pattern_and_counts_add_up(records: list[SampleRecord]) -> None:
    patterns = find_patterns(records)
    left_out = [path for pattern in patterns if pattern.status == "left out" for path in pattern.paths]
    assert sorted(left_out) == sorted(made.path for made in records if made.status != "warning")
    assert sum(pattern.records for pattern in patterns) == len(records)
    assert {path for pattern in patterns for path in pattern.paths} == {made.path for made in records}
    for pattern in patterns:
        assert sum(count for _, count in pattern.suffixes) == pattern.count
        assert sum(share.bad for share in pattern.folders) <= pattern.count
        assert pattern.remembered <= pattern.count
        assert set(pattern.examples()) <= set(pattern.paths)
        assert len(pattern.examples()) <= 3


@given(RECORDS, st.randoms(use_true_random=False))
def test_the_order_of_the_records_makes_no_difference(records: list[SampleRecord], order: random.Random) -> None:
    shuffled = list(records)
    order.shuffle(shuffled)
    assert find_patterns(shuffled) == find_patterns(records)


def test_ten_thousand_errors_in_two_hundred_folders_are_one_pattern_soon() -> None:
    records = [
        record(f"/clips/{n % 200}/{n}.mp4", f"damaged at {n / 7:.2f} s, byte {n * 100}", "re-encode")
        for n in range(10_000)
    ]
    began = time.process_time()
    (pattern,) = find_patterns(records)
    assert time.process_time() - began < 5
    assert (pattern.count, len(pattern.folders)) == (10_000, 200)
