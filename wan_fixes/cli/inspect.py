"""`wan inspect`: the pipeline of a run, module by module, and where the run stands; also while it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from wan_fixes.cli.console import AsJson, Debug, out, print_json, shown
from wan_fixes.cli.places import RunNumber, Workspace, find_run, find_run_database
from wan_fixes.cli.tables import duration_text, facts_table, moment_text
from wan_fixes.health.numbers import many, short_time_text

if TYPE_CHECKING:
    from wan_fixes.ui.flow import Flow, FlowNode
    from wan_fixes.ui.view_model import RunView

_INDENTED = (0, 0, 0, 5)
_LONG_SECONDS = 1.0

_Sources = Mapping[int, Mapping[str, int]]
"""By module, which module gives each item that it reads."""


def inspect(
    place: Workspace = Path(), number: RunNumber = None, as_json: AsJson = False, _debug: Debug = False
) -> None:
    """Show where a run stands, and its pipeline. Module by module: what it reads, gives, and did so far."""
    from wan_fixes.health import RunReader
    from wan_fixes.ui.flow import flows_of
    from wan_fixes.ui.view_model import view_run

    path = find_run_database(place)
    reader = RunReader(path)
    run = find_run(reader, number)
    view, states = view_run(reader, run.id), reader.states(run.id)
    assert view is not None
    flows = flows_of(states, view.counters)
    since = states.get("phase_since")
    since = float(since) if isinstance(since, (int, float)) and view.phase else None
    if as_json:
        print_json({"database": str(path), **_as_dict(view, since, flows, states)})
        return
    out.print(Text("workspace  ", style="bold") + shown(path.parent), soft_wrap=True)
    _show_state(view, since)
    if not flows:
        out.print()
        out.print("no pipeline is recorded: it was not built, or not yet")
    for what, flow in flows.items():
        out.print()
        out.print(Text(f"{what} pipeline: {many(len(flow.nodes), 'module')}", style="bold"))
        out.print(Text("(behind an item: the number of the module that gives it)", style="dim"))
        sources = _sources(states, what)
        name_width = max(len(node.name) for node in flow.nodes)
        for node in flow.nodes:
            _show_module(node, _reads(flow, node, sources), name_width)
        _show_missing(flow, sources)


def _show_state(view: RunView, since: float | None) -> None:
    from wan_fixes.cli.stats_view import alert_rows, cache_text, status_text

    facts = facts_table()
    for label, text in alert_rows(view):
        facts.add_row(label, text)
    facts.add_row("run", f"{view.run_id} ({view.kind}): {status_text(view)}")
    if view.phase:
        is_running = view.state == "running"
        when = f", since {moment_text(since)}" if since is not None else ""
        if since is not None and is_running:
            when += f" ({duration_text(view.started + view.age_seconds - since)})"
        facts.add_row("now" if is_running else "at last", shown(view.phase + when))
    if view.state == "running":
        facts.add_row("last wrote", f"{duration_text(view.silent_seconds)} ago")
    if cache_text(view):
        facts.add_row("cache", cache_text(view))
    for cache in view.caches if len(view.caches) > 1 else ():
        facts.add_row("", shown(f"{cache.folder}: {many(cache.entries, 'entry', 'entries')}"))
    if view.breakers_open:
        facts.add_row("switched off", shown(", ".join(view.breakers_open)))
    if view.last_event is not None:
        facts.add_row("last event", shown(view.last_event.message))
    out.print(facts)


def _show_module(node: FlowNode, reads: Mapping[str, int | None], name_width: int) -> None:
    line = Text(f"{node.at:>3}  ") + shown(node.name.ljust(name_width), "bold red" if node.is_off else "bold")
    out.print(line + Text(f"  {node.part:<9}  ") + shown(_work(node)), soft_wrap=True)
    if node.trouble:
        out.print(Padding(shown(node.trouble, "red"), _INDENTED))
    read = [f"{item} ({'nobody' if source is None else source})" for item, source in reads.items()]
    for what, items in (("reads", read), ("gives", node.gives)):
        if items:
            out.print(Padding(Text(f"{what} ", style="dim") + shown(", ".join(items)), _INDENTED))


def _work(node: FlowNode) -> str:
    """Items, time, and the longest that one took where that is long; "" where nothing was measured."""
    if not node.items:
        return ""
    alike = f" in {node.alike} modules" if node.alike > 1 else ""
    longest = f", longest {short_time_text(node.longest_seconds)}" if node.longest_seconds >= _LONG_SECONDS else ""
    return f"{many(node.items, 'item')}{alike}, {short_time_text(node.seconds)}{longest}"


def _show_missing(flow: Flow, sources: _Sources) -> None:
    missing = [f"{item} (read by {node.at} {node.name})" for node, item in _missing(flow, sources)]
    if missing:
        out.print(Padding(Text("nobody gives ", style="yellow") + shown(", ".join(missing)), _INDENTED))


def _missing(flow: Flow, sources: _Sources) -> Iterator[tuple[FlowNode, str]]:
    for node in flow.nodes:
        yield from ((node, item) for item, source in _reads(flow, node, sources).items() if source is None)


def _reads(flow: Flow, node: FlowNode, sources: _Sources) -> dict[str, int | None]:
    """What it reads, and which module gives that; of a collector only that: its other names are within the concept."""
    given = sources.get(node.at, {})
    names = (item for item in node.reads if item in given or node.at != flow.collector)
    return {item: given.get(item) for item in names}


def _sources(states: Mapping[str, Any], what: str) -> _Sources:
    from wan_fixes.health.run_records import STATE_PREFIX

    return {
        module["at"]: module["sources"]
        for module in states[STATE_PREFIX + what]
        if isinstance(module, dict) and isinstance(module.get("at"), int) and isinstance(module.get("sources"), dict)
    }


def _as_dict(
    view: RunView, since: float | None, flows: Mapping[str, Flow], states: Mapping[str, Any]
) -> dict[str, Any]:
    from dataclasses import asdict

    breakers = states.get("breakers") or {}
    return {
        "run_id": view.run_id,
        "kind": view.kind,
        "state": view.state,
        "phase": view.phase,
        "phase_since": since,
        "now": time.time(),
        "silent_seconds": view.silent_seconds,
        "alerts": [asdict(alert) for alert in view.alerts],
        "breakers": breakers,
        "caches": [asdict(cache) for cache in view.caches],
        "cache_hits": view.cache_hits,
        "cache_misses": view.cache_misses,
        "pipelines": {
            what: {
                "modules": [
                    {
                        **{name: value for name, value in asdict(node).items() if name not in ("facts", "share")},
                        "reads": _reads(flow, node, _sources(states, what)),
                        "breaker": breakers.get(node.name),
                    }
                    for node in flow.nodes
                ],
                "nobody_gives": [
                    {"item": item, "read_by": node.at} for node, item in _missing(flow, _sources(states, what))
                ],
            }
            for what, flow in flows.items()
        },
    }
