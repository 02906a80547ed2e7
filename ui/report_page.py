"""A run as one page: what it did, what was left out and why, its charts, times, data flow, events and configuration."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from wan_fixes.errors import UserError
from wan_fixes.health import EventRecord, RunReader, RunRecord, SampleRecord
from wan_fixes.health.html_page import html_page, text_of
from wan_fixes.health.numbers import many, memory_text, short_time_text, time_text
from wan_fixes.health.text import mask_values, size_text
from wan_fixes.ui.chart_svg import CHART_STYLE, chart_svg
from wan_fixes.ui.charts import Charts, charts_of
from wan_fixes.ui.flow import flows_of
from wan_fixes.ui.flow_page import FLOW_STYLE, flow_picture, flow_table
from wan_fixes.ui.view_model import RunView, RunViewer
from wan_fixes.ui.words import run_kind, run_state, sample_state

MOST_SAMPLES: Final = 1000
"""So many of the samples that were left out are listed, and as many warnings."""
_MOST_EVENTS: Final = 500
_ALERT_EVENTS: Final = ("alert", "alert_over")

_STYLE: Final = (
    FLOW_STYLE
    + CHART_STYLE
    + """
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } .charts h3 { margin: 0; font-size: 14px; }
.alert { border-left: 4px solid #b3261e; padding: .2rem .8rem; margin: .6rem 0; }
.headline { font-size: 17px; } .bad { color: #b3261e; } .good { color: #1b6e3c; }
td.path { word-break: break-all; } td.when { white-space: nowrap; }
pre { overflow-x: auto; font-size: 12px; } summary { cursor: pointer; margin: 1rem 0; }
table.narrow { width: auto; } table.narrow td, table.narrow th { padding-right: 1.5rem; }
@media (prefers-color-scheme: dark) {
  .alert { border-color: #ff8a80; } .bad { color: #ff8a80; } .good { color: #7fd8a0; }
}
"""
)


def report_page(database: RunReader, run_id: int | None = None) -> str:
    """The page of the run with this number, or of the latest: it needs nothing else, and every text in it is escaped.

    Raises `UserError` when there is no such run, or the database cannot be read.
    """
    with database.one_moment():
        view = RunViewer(database).view(run_id, with_samples=False)
        run = None if view is None else database.run(view.run_id)
        if view is None or run is None:
            raise UserError(
                "there is no run to report on" if run_id is None else f"there is no run {run_id} to report on",
                path=database.path,
                reason="it was not recorded, or its record is no longer kept",
                fix="see which runs there are with `wan runs`",
            )
        states = database.states(run.id)
        charts = charts_of(database, run)
        events = database.events(run.id)
        left_out = database.samples(run.id, "skipped", "failed", most=MOST_SAMPLES)
        warnings = database.samples(run.id, "warning", most=MOST_SAMPLES)
    body = "".join(
        [
            f"<h1>Run {run.id}: {text_of(run_kind(run.kind))}</h1>\n",
            _headline(view, run),
            _alerts(view, events),
            _samples(view, left_out, warnings),
            _charts(charts),
            _cache(view),
            _modules(view),
            _flows(states, view.counters),
            _events(events),
            _configuration(run.config),
            _made_with(states.get("versions"), run, database),
        ]
    )
    return html_page(f"wan report: run {run.id}", body, made_by="wan report", style=_STYLE)


def _headline(view: RunView, run: RunRecord) -> str:
    state = "running" if view.state == "running" else run_state(view.state).lower()
    tone = {"finished": "good", "failed": "bad", "interrupted": "bad"}.get(view.state, "")
    sentences = [
        f"{many(view.valid, 'usable sample')}, {view.skipped + view.failed:,} left out, {view.warned:,} with a warning."
    ]
    if view.last_step is not None:
        sentences.append(f"{many(view.steps, 'step')}, the last with a loss of {view.last_step.loss:.4f}.")
    if view.cache_hit_rate is not None:
        looked_up = view.cache_hits + view.cache_misses
        sentences.append(f"{view.cache_hit_rate:.0%} of {looked_up:,} look-ups were in the cache.")
    if view.memory is not None:
        gpu = f", the GPU's {memory_text(view.memory.gpu)}" if view.memory.gpu is not None else ""
        sentences.append(f"Memory: at most {memory_text(view.memory.peak)}{gpu}.")
    ended = f" It stood at: {text_of(view.phase)}." if view.phase and view.state != "finished" else ""
    return (
        f'<p class="headline"><b class="{tone}">{text_of(state)}</b>, begun {_moment(run.started)}, '
        f"{time_text(view.duration_seconds)} long.{ended}</p>\n<p>{text_of(' '.join(sentences))}</p>\n"
    )


def _alerts(view: RunView, events: Sequence[EventRecord]) -> str:
    ended = "" if view.state == "running" else ", and still when the run ended"
    on = "".join(
        f'<div class="alert"><b class="bad">{text_of(alert.message)}</b><br>since {_moment(alert.since)}{ended}'
        f'<br><span class="quiet">{text_of(alert.fix)}</span></div>\n'
        for alert in view.alerts
    )
    course = [event for event in events if event.kind in _ALERT_EVENTS]
    if not on and not course:
        return ""
    rows = ((_moment(event.time), text_of(event.message)) for event in course)
    return f"<h2>Alerts</h2>\n{on}{_table(('when', 'what'), rows) if course else ''}"


def _samples(view: RunView, left_out: Sequence[SampleRecord], warnings: Sequence[SampleRecord]) -> str:
    groups = (
        (sample_state(group.status), text_of(group.module), text_of(group.kind), f"{group.count:,}")
        for group in view.groups
    )
    parts = ["<h2>Samples</h2>\n"]
    if not view.groups:
        parts.append("<p>Nothing was left out.</p>\n")
    else:
        parts.append(_table(("what became of them", "module", "kind", "records"), groups, "narrow"))
    parts.append(_sample_table("left out", left_out, view.skipped + view.failed))
    table = _sample_table("warnings", warnings, view.warned)
    return "".join(parts) + (
        f"<details><summary>{many(view.warned, 'warning')}</summary>\n{table}</details>\n" if table else ""
    )


def _sample_table(heading: str, samples: Sequence[SampleRecord], total: int) -> str:
    if not samples:
        return ""
    rows = (
        f'<tr><td class="path">{text_of(sample.path)}</td><td>{text_of(sample.module)}</td>'
        f'<td>{text_of(sample.reason)}<br><span class="quiet">{text_of(sample.fix)}</span></td></tr>\n'
        for sample in samples
    )
    more = f"<p>and {total - len(samples):,} more</p>\n" if total > len(samples) else ""
    return (
        f"<table>\n<tr><th>{heading}</th><th>found by</th><th>why, and what helps</th></tr>\n{''.join(rows)}</table>\n"
        f"{more}"
    )


def _charts(charts: Charts) -> str:
    drawn = [
        f"<div><h3>{title}</h3>\n{svg}</div>\n"
        for title, series in (
            ("Loss", charts.loss),
            ("Samples left out", charts.left_out),
            ("Speed", charts.speed),
            ("Memory", charts.memory),
        )
        if (svg := chart_svg(title, series))
    ]
    return f'<h2>In the course of the run</h2>\n<div class="charts">{"".join(drawn)}</div>\n' if drawn else ""


def _cache(view: RunView) -> str:
    rows = [("found", f"{view.cache_hits:,}"), ("not found", f"{view.cache_misses:,}")]
    rows.append(("made", f"{view.cache_written:,}"))
    if view.cache_corruptions:
        rows.append(("damaged, and made again", f"{view.cache_corruptions:,}"))
    if view.cache_read_seconds is not None:
        rows.append(("mean time of reading one", short_time_text(view.cache_read_seconds)))
    folders = ((text_of(cache.folder), f"{cache.entries:,}", size_text(cache.bytes)) for cache in view.caches)
    if view.cache_hit_rate is None and not view.caches:
        return ""
    table = _table(("folder", "entries", "size"), folders) if view.caches else ""
    return f"<h2>Cache</h2>\n{_table(('entries', ''), rows, 'narrow')}{table}"


def _modules(view: RunView) -> str:
    if not view.modules:
        return ""
    whole = sum(row.seconds for row in view.modules) or 1.0
    rows = (
        (
            text_of(row.module),
            short_time_text(row.seconds) if row.seconds else "",
            f"{row.seconds / whole:.0%}" if row.seconds else "",
            f"{row.items:,}" if row.items else "",
            f"{row.items_per_second:,.1f}" if row.items_per_second else "",
            short_time_text(row.longest_seconds) if row.longest_seconds else "",
            f"{row.failures:,}" if row.failures else "",
            "switched off" if row.state not in ("", "closed") else "",
        )
        for row in view.modules
    )
    headings = ("module", "time", "share", "items", "per second", "longest", "failures", "")
    return f"<h2>Time of each module</h2>\n{_table(headings, rows)}"


def _flows(states: Mapping[str, Any], counters: Mapping[str, float]) -> str:
    return "".join(
        f"<h2>Data flow of the {text_of(what)} data</h2>\n{flow_picture(flow, what)}"
        f"<details><summary>its {many(len(flow.nodes), 'module')}</summary>\n{flow_table(flow)}</details>\n"
        for what, flow in flows_of(states, counters).items()
    )


def _events(events: Sequence[EventRecord]) -> str:
    if not events:
        return ""
    shown = events[-_MOST_EVENTS:]
    rows = ((_moment(event.time), text_of(event.kind), text_of(event.message)) for event in shown)
    more = f"<p>{len(events) - len(shown):,} earlier ones are not shown</p>\n" if len(events) > len(shown) else ""
    return f"<h2>Events</h2>\n{more}{_table(('when', 'kind', 'what'), rows)}"


def _configuration(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    lines = json.dumps(mask_values(config), indent=2, sort_keys=True, ensure_ascii=False).splitlines()
    return (
        "<h2>Configuration</h2>\n<details><summary>what the run was started with</summary>\n<pre>"
        f"{chr(10).join(map(text_of, lines))}</pre></details>\n"
    )


def _made_with(versions: Any, run: RunRecord, database: RunReader) -> str:
    rows = [("database", text_of(database.path)), ("machine", text_of(run.host)), ("process", str(run.pid))]
    if isinstance(versions, Mapping):
        rows += [(text_of(name), text_of(version)) for name, version in versions.items()]
    return f'<h2>Made with</h2>\n{_table(("", ""), rows, "narrow")}<p class="quiet">{_moment(time.time())}</p>\n'


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are markup already."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<table class="{kind}">\n<tr>{head}</tr>\n{body}</table>\n'


def _moment(seconds: float) -> str:
    """A moment in local time: "2026-11-26 18:02:07"."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):  # a damaged database
        return "at an unknown time"
