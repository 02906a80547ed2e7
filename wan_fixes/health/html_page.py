"""A web page that needs nothing else and runs nothing: its frame, its texts, and how it is written to a file."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Final

from wan_fixes.errors import UserError
from wan_fixes.health.text import plain

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for a page: nothing from anywhere, and no script, even if a text slipped through."""

# How what is written here begins: a page, a picture (SVG), a graph (mermaid). Anything else is somebody's own file.
_MARKS = re.compile(r'<meta name="generator" content="wan |<!-- made by wan |%% made by wan ')
_MARK_WITHIN: Final = 512  # characters from the start
_NO_XML: Final = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}  # characters that no XML may hold, not even by number
_LONGEST_TEXT: Final = 4096  # characters: a path that is cut cannot be copied

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #ddd; }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd; } th, td { border-color: #444; }
}
"""


def html_page(title: str, body: str, *, made_by: str, style: str = "") -> str:
    """The page.

    Parameters
    ----------
    body:
        Markup, in which every text has gone through `text_of`.
    made_by:
        The command: "wan check".
    style:
        CSS that comes on top of what every page has.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="generator" content="{text_of(made_by)}">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{text_of(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def text_of(text: object) -> str:
    """A text for HTML and SVG: control characters and lone surrogates shown, secrets masked, markup escaped."""
    return html.escape(plain(str(text), limit=_LONGEST_TEXT)).translate(_NO_XML)


def write_page(page: str, file: Path) -> None:
    """Write a page, picture or graph of ours, in the place of an earlier one if there is one.

    Raises
    ------
    UserError
        If there is another file of that name: nothing of the user's is replaced. If it cannot be written.
    """
    try:
        if file.exists() and not _is_ours(file):
            raise UserError(
                "the page is not written",
                path=file,
                reason="there is a file of that name that is no page of this program",
                fix="name another file",
            )
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(
            "the page cannot be written",
            path=file,
            reason=error.strerror or str(error),
            fix="name a file in a folder that is there and can be written to",
        ) from error


def _is_ours(file: Path) -> bool:
    if not file.is_file():
        return False  # a folder, a pipe: reading might never end
    with file.open(encoding="utf-8", errors="replace") as start:
        return _MARKS.search(start.read(_MARK_WITHIN)) is not None
