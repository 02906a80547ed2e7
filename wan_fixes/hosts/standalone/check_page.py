"""The verdicts on a preset's files as one web page that needs nothing else: texts are escaped, pictures are inside."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from wan_fixes.errors import UserError
from wan_fixes.health import plain
from wan_fixes.hosts.standalone.check import FileVerdict
from wan_fixes.hosts.standalone.clip_spread import Bars, ClipSpread
from wan_fixes.hosts.standalone.preset import Preset

_MARK = '<meta name="generator" content="wan check">'
_STATUSES = ("rejected", "warning", "good")  # what needs a hand comes first
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #ddd; }
td.name { word-break: break-all; }
img { max-height: 120px; border-radius: 4px; }
.rejected { color: #b3261e; } .warning { color: #8a5a00; } .good { color: #1b6e3c; }
.fix { color: #555; }
.spread { width: auto; } .spread td { border: 0; padding: .1rem .8rem .1rem 0; }
.bar { background: #5b8def; height: .8rem; border-radius: 2px; }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd; } th, td { border-color: #444; } .fix { color: #aaa; }
  .rejected { color: #ff8a80; } .warning { color: #ffca6b; } .good { color: #7fd8a0; }
}
"""


def check_page(
    preset: Preset,
    verdicts: Sequence[FileVerdict],
    spread: ClipSpread,
    poster: Callable[[str], bytes | None],
) -> str:
    """The page.

    Parameters
    ----------
    poster:
        Gives a JPEG of a file that was rejected, or None.
    """
    counts: Counter[str] = Counter(verdict.status for verdict in verdicts)
    totals = ", ".join(f"{counts[status]} {status}" for status in reversed(_STATUSES))
    heading = f"{preset.frames} frames at {preset.variant.fps} fps: {totals}"
    rows = "".join(
        _row(verdict, poster(verdict.path) if status == "rejected" else None)
        for status in _STATUSES
        for verdict in verdicts
        if verdict.status == status
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{_MARK}\n"
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>wan check: {_text(preset.path.name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(preset.path)}</h1>\n<p>{_text(heading)}</p>\n"
        f"<table>\n<tr><th></th><th>clip</th><th>verdict</th><th>why, and what helps</th></tr>\n{rows}</table>\n"
        f"{_bars(f'frames at {preset.variant.fps} fps', spread.lengths)}"
        f"{_bars('frames per second', spread.rates)}"
        f"{_bars('trained at', spread.buckets)}"
        "</body>\n</html>\n"
    )


def write_page(page: str, file: Path) -> None:
    """Write it, in the place of an earlier page if there is one.

    Raises
    ------
    UserError
        If there is another file of that name: nothing of the user's is replaced. If it cannot be written.
    """
    try:
        if file.exists() and _MARK not in file.read_text(encoding="utf-8", errors="replace")[:512]:
            raise UserError(
                "the page is not written",
                path=file,
                reason="there is a file of that name that is no page of wan check",
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


def _row(verdict: FileVerdict, jpeg: bytes | None) -> str:
    picture = ""
    if jpeg is not None:
        picture = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode("ascii")}">'
    fix = f'<div class="fix">{_text(verdict.fix)}</div>' if verdict.fix else ""
    return (
        f'<tr><td>{picture}</td><td class="name">{_text(verdict.name)}</td>'
        f'<td class="{verdict.status}">{verdict.status}</td>'
        f"<td>{_text(verdict.reason or verdict.facts)}{fix}</td></tr>\n"
    )


def _bars(heading: str, bars: Bars) -> str:
    if not bars:
        return ""
    most = max(count for _, count in bars)
    rows = "".join(
        f"<tr><td>{_text(label)}</td><td>{count}</td>"
        f'<td><div class="bar" style="width: {max(1, round(300 * count / most))}px"></div></td></tr>\n'
        for label, count in bars
    )
    return f'<h2>{_text(heading)}</h2>\n<table class="spread">\n{rows}</table>\n'


def _text(text: object) -> str:
    """Control characters and lone surrogates shown, markup escaped."""
    return html.escape(plain(str(text), limit=4096))
