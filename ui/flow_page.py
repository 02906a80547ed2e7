"""The data flow of a run as a page, a picture or a graph: what `wan flow` writes."""

from __future__ import annotations

from typing import Final

from wan_fixes.errors import UserError
from wan_fixes.health import RunReader
from wan_fixes.health.html_page import html_page, text_of
from wan_fixes.health.numbers import many, short_time_text
from wan_fixes.ui.flow import Flow, FlowNode, flows_of, mermaid
from wan_fixes.ui.flow_svg import flow_svg

FLOW_STYLE: Final = """
.scroll { overflow-x: auto; } .scroll svg { max-width: 100%; height: auto; }
table.modules { font-size: 13px; } table.modules td { overflow-wrap: anywhere; }
table.modules .name { min-width: 14rem; }
.number { text-align: right; white-space: nowrap; } .quiet { color: #666; } .trouble { color: #b3261e; }
@media (prefers-color-scheme: dark) { .quiet { color: #aaa; } .trouble { color: #ff8a80; } }
"""
"""CSS for what `flow_section` gives."""

_TOGETHER: Final = (
    "Items and times are counted by name: modules of one name together, and training and validation together."
)


def flow_page(flows: dict[str, Flow], run_id: int) -> str:
    """A page with the pipelines of a run."""
    sections = "".join(f"<h2>{text_of(what)}</h2>\n{flow_section(flow, what)}" for what, flow in flows.items())
    body = f'<h1>The data flow of run {run_id}</h1>\n<p class="quiet">{_TOGETHER}</p>\n{sections}'
    return html_page(f"wan flow: run {run_id}", body, made_by="wan flow", style=FLOW_STYLE)


def flow_section(flow: Flow, what: str) -> str:
    """The picture of one pipeline, and a table of its modules below."""
    return flow_picture(flow, what) + flow_table(flow)


def flow_picture(flow: Flow, what: str) -> str:
    """The picture of one pipeline, and what was left out by what is not in it."""
    elsewhere = "".join(
        f'<p class="trouble">{many(count, "sample")} left out by {text_of(module)}, which is no module of the pipeline'
        "</p>\n"
        for module, count in flow.elsewhere
    )
    return f'<div class="scroll">{flow_svg(flow, f"data flow of the {what} data")}</div>\n{elsewhere}'


def flow_table(flow: Flow) -> str:
    """What each module of a pipeline reads and gives, and its work."""
    return (
        '<table class="modules">\n<tr><th></th><th>module</th><th>reads</th><th>gives</th>'
        '<th class="number">items</th><th class="number">time</th><th class="number">share</th>'
        f'<th class="number">longest</th></tr>\n{"".join(map(_row, flow.nodes))}</table>\n'
    )


def flow_svg_file(flows: dict[str, Flow], run_id: int) -> str:
    """The picture of the first pipeline, by itself, in ASCII, so that every pipe takes it."""
    what, flow = next(iter(flows.items()))
    picture = flow_svg(flow, f"data flow of the {what} data of run {run_id}")
    return f"<!-- made by wan flow -->\n{picture.encode('ascii', 'xmlcharrefreplace').decode('ascii')}"


def flow_mermaid(flows: dict[str, Flow]) -> str:
    """The graph of the first pipeline."""
    return mermaid(next(iter(flows.values())))


def recorded_flows(database: RunReader, run_id: int) -> dict[str, Flow]:
    """The pipelines of a run, that of the training first. Raises `UserError` where none was recorded."""
    with database.one_moment():
        flows = flows_of(database.states(run_id), database.counters_of(run_id))
    if not flows:
        raise UserError(
            "there is no data flow to show",
            path=database.path,
            reason=f"run {run_id} recorded no pipeline: it ended before one was built, or an earlier version ran it",
            fix="name another run with --run, or train with this version",
        )
    return flows


def _row(node: FlowNode) -> str:
    trouble = f'<br><span class="trouble">{text_of(node.trouble)}</span>' if node.trouble else ""
    facts = f'<br><span class="quiet">{text_of(node.facts)}</span>' if node.facts else ""
    settings = f'<br><span class="quiet">{text_of(", ".join(node.settings))}</span>' if node.settings else ""
    measured = [
        f"{node.items:,}",
        short_time_text(node.seconds),
        f"{node.share:.0%}",
        short_time_text(node.longest_seconds),
    ]
    numbers = "".join(f'<td class="number">{number if node.items else ""}</td>' for number in measured)
    return (
        f'<tr><td class="number quiet">{node.at}</td><td class="name">{text_of(node.name)}<br>'
        f'<span class="quiet">{node.part}</span>{facts}{trouble}</td>'
        f"<td>{text_of(', '.join(node.reads))}{settings}</td><td>{text_of(', '.join(node.gives))}</td>{numbers}</tr>\n"
    )
