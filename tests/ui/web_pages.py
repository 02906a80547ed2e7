"""Reads pages as a browser does: what is text and what is markup, and what a page would fetch or run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from wan_fixes.health.html_page import POLICY

REFERENCES = ("src", "href", "xlink:href", "action", "formaction", "data", "poster", "srcset", "background")
RUNNING = {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "animate", "set", "use"}


@dataclass
class Page:
    """What a page consists of."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    """Tag, name, value."""
    texts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.page.tags.append(tag)
        self.page.attributes += [(tag, name, value or "") for name, value in attributes]
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        (self.page.styles if self._in_style else self.page.texts).append(data)


def read_page(text: str) -> Page:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.page


def assert_needs_nothing(text: str, *, whole: bool = True) -> Page:
    """The page fetches nothing, runs nothing, and (a whole one) forbids both; gives what it consists of."""
    page = read_page(text)
    assert not RUNNING & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"{tag} would run {name}"
        assert name not in REFERENCES or value.startswith(("data:image/", "#")), f"{tag} would fetch {value}"
        assert "url(" not in value.lower() and "javascript:" not in value.lower()
    for style in page.styles:
        assert not re.search(r"(?i)url\(|@import|expression|https?:", style)
    if whole:
        assert ("meta", "content", POLICY) in page.attributes
        assert "script-src" not in POLICY and POLICY.startswith("default-src 'none'")
        assert page.tags.index("meta") < page.tags.index("style")
    return page
