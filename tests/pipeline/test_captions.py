"""Captions: every file that is text is read, every other is named, and nothing passes in silence."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import SampleError
from wan_fixes.pipeline import ValidatedCaptionLoader
from wan_fixes.pipeline.captions import MAX_CAPTION_BYTES, read_captions

from .toys import Collector, RandomAccess, concept_of, samples_of, started

GOOD = {
    "plain": (b"a red ball", ["a red ball"]),
    "utf-8": ("ein Vögelchen, 鳥, 🐦".encode(), ["ein Vögelchen, 鳥, 🐦"]),
    "utf-8 with a mark": (b"\xef\xbb\xbfa red ball", ["a red ball"]),
    "utf-16 little-endian": ("ein Vögelchen".encode("utf-16"), ["ein Vögelchen"]),
    "utf-16 big-endian": (b"\xfe\xff" + "ein Vögelchen".encode("utf-16-be"), ["ein Vögelchen"]),
    "several lines": (b"one\n\n  two  \nthree", ["one", "two", "three"]),
    "windows line ends": (b"one\r\ntwo\r\n", ["one", "two"]),
    "old line ends": (b"one\rtwo", ["one", "two"]),
    "what only looks like a line end": ("one\u2028two\x0bthree\x85".encode(), ["one\u2028two\x0bthree"]),
    "empty": (b"", []),
    "only blanks": (b" \n\t\r\n ", []),
    "only a mark": (b"\xef\xbb\xbf", []),
    "at the limit": (b"x" * MAX_CAPTION_BYTES, ["x" * MAX_CAPTION_BYTES]),
}

BAD = {
    "latin-1": ("ein Vögelchen".encode("latin-1"), "it is not UTF-8: byte 5 is 0xf6"),
    "utf-16 without a mark": ("a ball".encode("utf-16-le"), "zero bytes"),
    "utf-16 cut in two": ("a ball".encode("utf-16")[:-1], "it is not UTF-16"),
    "utf-32": ("a ball".encode("utf-32"), "zero bytes"),
    "zero bytes": (b"a red\0ball", "zero bytes"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it is not UTF-8: byte 0 is 0x89"),
    "too large": (b"x" * (MAX_CAPTION_BYTES + 1), "larger than 1 MiB"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_text_is_read(tmp_path, kind):
    content, lines = GOOD[kind]
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read_captions(path) == lines


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_text_is_named_with_reason_and_fix(tmp_path, kind):
    content, reason = BAD[kind]
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=reason) as caught:
        read_captions(path)
    assert caught.value.path == str(path)
    assert caught.value.fix


@pytest.mark.parametrize("path", ["", "no/such/file.txt", "/", "a\0b"])
def test_what_is_no_file_has_no_captions(path):
    assert read_captions(path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    assert read_captions(tmp_path / "a.txt") == []


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any bytes.txt"
    path.write_bytes(content)
    try:
        captions = read_captions(path)
    except SampleError as error:
        assert error.reason and error.fix and error.path == str(path)
    else:
        assert all(caption == caption.strip() != "" for caption in captions)


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\0\r\n\ufeff", exclude_categories=["Cs"]))),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_text_comes_back_line_by_line(tmp_path_factory, lines, encoding):
    path = tmp_path_factory.getbasetemp() / "any text.txt"
    text = "\n".join(lines)
    path.write_bytes(text.encode(encoding))
    assert read_captions(path) == [line.strip() for line in lines if line.strip()]


# In a pipeline


def captions_of(context, paths, **options):
    places = RandomAccess(
        lambda module, variation, index, name: {"caption_path": paths[index]}, ("caption_path",), "image_path"
    )
    loader = ValidatedCaptionLoader("caption_path", "prompts", context=context, **options)
    return started(Collector([concept_of()] * len(paths)), places, loader)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "two.txt").write_text("one\ntwo")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("Vögel".encode("latin-1"))
    return [str(tmp_path / name) for name in ("two.txt", "empty.txt", "missing.txt", "latin.txt")]


def test_all_lines_or_the_first_one(context, files):
    assert captions_of(context, files).read("prompts", 0) == ["one", "two"]
    assert captions_of(context, files, first_line_only=True).read("prompts", 0) == "one"


@pytest.mark.parametrize(("index", "reason"), [(1, "the caption file is empty"), (2, "there is no caption file")])
def test_a_clip_without_a_caption_is_trained_with_an_empty_prompt_and_warned_of_once(context, files, index, reason):
    reader = captions_of(context, files)
    assert [reader.read("prompts", index, variation) for variation in range(3)] == [[""]] * 3
    assert captions_of(context, files, first_line_only=True).read("prompts", index) == ""
    warnings = samples_of(context, "warning")
    assert list(warnings) == [files[index]]
    assert warnings[files[index]].reason == f"{reason}: trained with an empty prompt"


@pytest.mark.parametrize(("index", "reason"), [(1, "the caption file is empty"), (2, "there is no caption file")])
def test_or_it_is_left_out_where_the_settings_say_so(contexts, files, index, reason):
    reader = captions_of(contexts.new(missing_captions="skip"), files)
    with pytest.raises(SampleError, match=reason) as caught:
        reader.read("prompts", index)
    assert caught.value.path == files[index]
    assert reader.read("prompts", 0) == ["one", "two"]


@pytest.mark.parametrize("missing_captions", ["empty", "skip"])
def test_one_that_is_not_text_leaves_its_clip_out_in_any_case(contexts, files, missing_captions):
    with pytest.raises(SampleError, match="UTF-8"):
        captions_of(contexts.new(missing_captions=missing_captions), files).read("prompts", 3)


def test_a_concept_that_names_no_file_of_prompts_has_an_empty_one(context):
    """`concept.text.prompt_path` is empty unless the concept has one prompt file for all."""
    reader = captions_of(context, ["", None])
    assert [reader.read("prompts", index) for index in range(2)] == [[""], [""]]
