"""What `wan stats` shows of a run: a few rows, of which those that say nothing are left out, and two tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wan_fixes.cli.console import name_within, shown, why_and_fix
from wan_fixes.cli.tables import duration_text, facts_table, small_table
from wan_fixes.health import SampleGroup
from wan_fixes.health.numbers import many, memory_text, rate_text, short_time_text
from wan_fixes.health.text import size_text
from wan_fixes.ui.view_model import ModuleRow, RunView

_MODULES = 10
_LEFT_OUT, _LEFT_OUT_OF_MANY = 20, 5
_ORDINARY_KINDS = ("SampleError", "warning", "")  # which say no more than the module does
_OFF = "bold red"


def run_picture(view: RunView) -> Group:
    """All of a run that fits a terminal, for showing it again and again."""
    return Group(*_parted([run_facts(view), modules_table(view)]))


def whole_run(view: RunView) -> Group:
    """The same, with what was left out."""
    return Group(*_parted([run_facts(view), left_out_table(view), modules_table(view)]))


def _parted(parts: list[RenderableType | None]) -> Iterator[RenderableType]:
    """Those that are there, with empty lines between them."""
    for at, part in enumerate(part for part in parts if part is not None):
        if at:
            yield Text()
        yield part


def run_facts(view: RunView) -> Table:
    """Alerts, then a row for each thing that there is something to say of."""
    facts = facts_table()
    for label, text in alert_rows(view):
        facts.add_row(label, text)
    for name, words in _rows(view):
        if words:
            facts.add_row(name, shown(words))
    return facts


def alert_rows(view: RunView) -> Iterator[tuple[Text, Text]]:
    """A row for each alert: what is wrong, for how long, and what helps."""
    for alert in view.alerts:
        when = "at its end"
        if view.state == "running":
            when = f"for {duration_text(max(0.0, view.started + view.age_seconds - alert.since))}"
        message = shown(f"{alert.message} ({when})", _OFF)
        yield Text("! ALERT", _OFF), Text("\n").join([message, shown(f"fix: {alert.fix}")])


def status_text(view: RunView) -> str:
    """How the run stands: "running, 12 min 3 s"."""
    return f"{view.state}, {duration_text(view.duration_seconds)}"


def samples_text(view: RunView) -> str:
    """How many samples there are of each verdict; "" before the first."""
    if not view.valid + view.skipped + view.failed + view.warned:
        return ""
    warned = f", {view.warned:,} with warnings" if view.warned else ""
    return f"{view.valid:,} valid, {view.skipped:,} skipped, {view.failed:,} failed{warned}"


def speed_text(view: RunView) -> str:
    """Steps, samples and cache entries per second; "" where none is being made."""
    speeds = (
        (view.steps_per_second, "steps"),
        (view.samples_per_second, "samples"),
        (view.entries_per_second, "cache entries"),
    )
    return ", ".join(rate_text(speed, what) for speed, what in speeds if speed)


def steps_text(view: RunView) -> str:
    """Steps of this run, where it stands, and the loss; "" before the first step."""
    if view.last_step is None:
        return ""
    return f"{view.steps}, now at {view.last_step.step}, loss {view.last_step.loss:.4f}"


def _rows(view: RunView) -> Iterator[tuple[str, str]]:
    yield "run", f"{view.run_id} ({view.kind}): {status_text(view)}"
    yield ("now" if view.state == "running" else "at last"), view.phase
    yield "samples", samples_text(view)
    yield "left out", _by_module([group for group in view.groups if group.status in ("skipped", "failed")])
    yield "warnings", _by_module([group for group in view.groups if group.status == "warning"])
    yield "cache", cache_text(view)
    yield "memory", _memory(view)
    yield "disk", _disk(view)
    yield "speed", speed_text(view)
    yield "steps", steps_text(view)
    yield "switched off", ", ".join(view.breakers_open)
    yield "last event", "" if view.last_event is None else view.last_event.message


def _by_module(groups: list[SampleGroup]) -> str:
    """ "12 by media, 3 by captions (OSError)"."""
    return ", ".join(
        f"{group.count:,} by {group.module or 'nobody named'}"
        + ("" if group.kind in _ORDINARY_KINDS else f" ({group.kind})")
        for group in groups
    )


def cache_text(view: RunView) -> str:
    """What was looked up, made and found damaged, and what the caches hold."""
    parts = []
    if view.cache_hit_rate is not None:
        parts.append(f"{view.cache_hits:,} hits, {view.cache_misses:,} misses ({view.cache_hit_rate:.0%} hits)")
    if view.cache_written:
        parts.append(f"{view.cache_written:,} made")
    if view.caches:
        entries = sum(cache.entries for cache in view.caches)
        parts.append(f"holds {many(entries, 'entry', 'entries')}, {size_text(view.cache_bytes)}")
    if view.cache_corruptions:
        parts.append(f"{view.cache_corruptions:,} found damaged")
    return "; ".join(parts)


def _memory(view: RunView) -> str:
    """What it takes while it runs; of one that has ended, the most that it took."""
    memory = view.memory
    if memory is None or not memory.peak:
        return ""
    peak = f"at most {memory_text(memory.peak)}"
    if view.state != "running":
        return peak
    parts = [f"{memory_text(memory.used)}, {peak}"]
    if memory.gpu is not None:
        parts.append(f"GPU {memory_text(memory.gpu)}")
    parts.append(f"{memory_text(memory.available)} free")
    if memory.swap:
        parts.append(f"swap {memory_text(memory.swap)}")
    return "; ".join(parts)


def _disk(view: RunView) -> str:
    memory = view.memory
    if memory is None or not (memory.disk_read or memory.disk_written):
        return ""
    return f"{memory_text(memory.disk_read or 0)} read, {memory_text(memory.disk_written or 0)} written"


def left_out_table(view: RunView) -> RenderableType | None:
    """The samples that were left out, with the reason and what helps; of many the first ones. None for none."""
    if not view.skipped_samples:
        return None
    table, folders = small_table("left out", "why, and what helps"), _folders(view)
    is_much = len(view.skipped_samples) > _LEFT_OUT
    listed = view.skipped_samples[:_LEFT_OUT_OF_MANY] if is_much else view.skipped_samples
    for sample in listed:
        table.add_row(name_within(sample.path, folders), why_and_fix(sample.reason, sample.fix))
    more = len(view.skipped_samples) - len(listed)
    if not more:
        return table
    return Group(table, Text(f"and {more:,} more: `wan errors` shows what they have in common"))


def _folders(view: RunView) -> list[str]:
    """Those of the concepts, as far as the run's configuration has them: OneTrainer's may name a file instead."""
    concepts = view.config.get("concepts")
    paths = [
        concept.get("path") for concept in (concepts if isinstance(concepts, list) else ()) if isinstance(concept, dict)
    ]
    return [path for path in paths if isinstance(path, str) and path]


def modules_table(view: RunView) -> RenderableType | None:
    """The modules that took the most time, and those that failed. None where nothing was measured."""
    rows = [row for at, row in enumerate(view.modules) if at < _MODULES or row.failures or _is_off(row)]
    rows = [row for row in rows if row.seconds or row.failures or _is_off(row)]
    if not rows:
        return None
    failed = any(row.failures for row in rows)
    headings = ("module", "time", "items", "items/s", "longest", *(("failed",) if failed else ()))
    table = small_table(*headings, right=tuple(range(1, len(headings))))
    for row in rows:
        table.add_row(*_module_cells(row, failed=failed))
    more = len([row for row in view.modules if row.seconds]) - len([row for row in rows if row.seconds])
    return table if more <= 0 else Group(table, Text(f"and {many(more, 'faster module')}"))


def _module_cells(row: ModuleRow, *, failed: bool) -> list[Any]:
    name = shown(row.module, _OFF if _is_off(row) else "")
    pace = f"{row.items_per_second:,.1f}" if row.items_per_second else ""
    longest = short_time_text(row.longest_seconds) if row.longest_seconds else ""
    cells = [name, duration_text(row.seconds), f"{row.items:,}" if row.items else "", pace, longest]
    return [*cells, *((f"{row.failures:,}" if row.failures else "",) if failed else ())]


def _is_off(row: ModuleRow) -> bool:
    return row.state not in ("", "closed")
