"""The verdicts on a preset's files as one web page that needs nothing else: texts are escaped, pictures are inside."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence

from wan_fixes.health.html_page import html_page, text_of
from wan_fixes.hosts.standalone.check import FileVerdict
from wan_fixes.hosts.standalone.clip_spread import Bars, ClipSpread
from wan_fixes.hosts.standalone.preset import Preset
from wan_fixes.preflight import ConfigFinding

_STATUSES = ("rejected", "warning", "good")  # what needs a hand comes first
_SEVERITIES = {"error": "rejected", "warning": "warning"}  # the styles of verdicts
_STYLE = """
td.name { word-break: break-all; }
img { max-height: 120px; border-radius: 4px; }
.rejected { color: #b3261e; } .warning { color: #8a5a00; } .good { color: #1b6e3c; }
.fix { color: #555; }
.spread { width: auto; } .spread td { border: 0; padding: .1rem .8rem .1rem 0; }
.bar { background: #5b8def; height: .8rem; border-radius: 2px; }
@media (prefers-color-scheme: dark) {
  .fix { color: #aaa; }
  .rejected { color: #ff8a80; } .warning { color: #ffca6b; } .good { color: #7fd8a0; }
}
"""


def check_page(
    preset: Preset,
    verdicts: Sequence[FileVerdict],
    spread: ClipSpread,
    poster: Callable[[str], bytes | None],
    found: Sequence[ConfigFinding] = (),
) -> str:
    """The page.

    Parameters
    ----------
    poster:
        Gives a JPEG of a file that was rejected, or None.
    found:
        What is to be said of the preset itself.
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
    return html_page(
        f"wan check: {preset.path.name}",
        f"<h1>{text_of(preset.path)}</h1>\n<p>{text_of(heading)}</p>\n"
        f"{_findings(found)}"
        f"<table>\n<tr><th></th><th>clip</th><th>verdict</th><th>why, and what helps</th></tr>\n{rows}</table>\n"
        f"{_bars(f'frames at {preset.variant.fps} fps', spread.lengths)}"
        f"{_bars('frames per second', spread.rates)}"
        f"{_bars('trained at', spread.buckets)}",
        made_by="wan check",
        style=_STYLE,
    )


def _findings(found: Sequence[ConfigFinding]) -> str:
    """A table of what was found of the preset; "" where nothing was."""
    if not found:
        return ""
    rows = "".join(
        f'<tr><td class="name">{text_of(finding.field)}</td>'
        f'<td class="{_SEVERITIES[finding.severity]}">{finding.severity}</td>'
        f'<td>{text_of(f"{finding.what}: {finding.why}")}<div class="fix">{text_of(finding.fix)}</div></td></tr>\n'
        for finding in found
    )
    return f"<table>\n<tr><th>field</th><th>verdict</th><th>what and why, and what helps</th></tr>\n{rows}</table>\n"


def _row(verdict: FileVerdict, jpeg: bytes | None) -> str:
    picture = ""
    if jpeg is not None:
        picture = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode("ascii")}">'
    fix = f'<div class="fix">{text_of(verdict.fix)}</div>' if verdict.fix else ""
    return (
        f'<tr><td>{picture}</td><td class="name">{text_of(verdict.name)}</td>'
        f'<td class="{verdict.status}">{verdict.status}</td>'
        f"<td>{text_of(verdict.reason or verdict.facts)}{fix}</td></tr>\n"
    )


def _bars(heading: str, bars: Bars) -> str:
    if not bars:
        return ""
    most = max(count for _, count in bars)
    rows = "".join(
        f"<tr><td>{text_of(label)}</td><td>{count}</td>"
        f'<td><div class="bar" style="width: {max(1, round(300 * count / most))}px"></div></td></tr>\n'
        for label, count in bars
    )
    return f'<h2>{text_of(heading)}</h2>\n<table class="spread">\n{rows}</table>\n'
