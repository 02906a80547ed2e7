"""Pages of ours: nothing in them is fetched or run, and writing one replaces nothing but another of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wan_fixes.errors import UserError
from wan_fixes.health.html_page import html_page, text_of, write_page

PAGE = html_page("a title", "<p>text</p>\n", made_by="wan check")


@pytest.mark.parametrize("earlier", [PAGE, "<!-- made by wan flow -->\n<svg/>", "%% made by wan flow\nflowchart TD\n"])
def test_what_was_made_by_us_is_replaced(tmp_path: Path, earlier: str) -> None:
    file = tmp_path / "page.html"
    write_page(earlier, file)
    write_page(PAGE, file)
    assert file.read_text(encoding="utf-8") == PAGE


@pytest.mark.parametrize("content", [b"", b"mine", b"<!doctype html>\n<title>mine</title>", b"\xff\xfe\x00" * 99])
def test_a_file_of_the_users_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(content)
    with pytest.raises(UserError, match="not written"):
        write_page(PAGE, file)
    assert file.read_bytes() == content


def test_a_page_that_only_speaks_of_ours_is_not_ours(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("x" * 600 + PAGE, encoding="utf-8")
    with pytest.raises(UserError):
        write_page(PAGE, file)


@pytest.mark.parametrize("name", ["", "missing/page.html"])
def test_where_no_file_can_be_written_it_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        write_page(PAGE, tmp_path / name)
    assert caught.value.fix


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError):
        write_page(PAGE, tmp_path / "pipe")


def test_a_title_is_text() -> None:
    page = html_page("<script>alert(1)</script>", "", made_by='wan "x"')
    assert "<script>" not in page and "&lt;script&gt;" in page and 'content="wan &quot;x&quot;"' in page


def test_secrets_and_what_cannot_be_written_are_not_in_a_page() -> None:
    assert text_of("hf_abcdefghijklmnop \ud800 \x00 \uffff <b>") == "*** \\ud800 \\x00 \\uffff &lt;b&gt;"
