"""The first page: how the run goes, in words, figures and a chart."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from wan_fixes.health.numbers import count_text, many, memory_text, rate_text, short_time_text, time_text
from wan_fixes.health.run_records import SILENT_SECONDS
from wan_fixes.health.text import size_text
from wan_fixes.ui.charts import Charts, Series
from wan_fixes.ui.kit import Kit, Row, Shown, Text
from wan_fixes.ui.theme import Tone
from wan_fixes.ui.view_model import ModuleRow, RunView
from wan_fixes.ui.watch import Glance
from wan_fixes.ui.words import NOTHING, line, run_kind, run_state, sentence, stage_name

_ALERTS: Final = 2
"""So many are shown; of more the number is said."""
_CARDS: Final = ("Samples", "Cache", "Speed", "Loss", "Memory", "GPU memory", "Errors", "Switched off")
_IN_A_ROW: Final = 4
_CHARTS: Final = {"loss": "Loss", "speed": "Speed", "memory": "Memory", "left_out": "Samples left out"}
_NO_CHART: Final = {
    "loss": "The loss shows here from the first step on.",
    "speed": "Steps and samples per second show here.",
    "memory": "What memory is used shows here.",
    "left_out": "No sample is left out.",
}
_GB_FROM: Final = 4096.0  # MB: charts of more than this are in GB
_SHORTEST: Final = 0.001  # seconds: a stage that took less, and made nothing, is not shown
_NO_RUN: Final = (
    "Start a training, or fill the cache: samples, speed, memory and what was left out show here while it runs, and "
    "stay until the next one."
)

Words = tuple[str, Tone]
Figure = tuple[Words, Words]
"""What is so, and a line about it."""
_NOTHING: Final[Figure] = ((NOTHING, "dim"), ("", "dim"))


class OverviewPage:
    """Laid out once, updated about once a second."""

    title = "Overview"
    wants: Mapping[str, Any] = {"charts": True, "models": False, "statuses": ()}

    def __init__(self, kit: Kit, box: Any) -> None:
        self._kit = kit
        self._charts: Charts | None = None
        self._drawn: tuple[Charts | None, str] | None = None
        self._chart_name = next(iter(_CHARTS))
        kit.grow(box, rows={3: 1}, columns={0: 1})
        head = kit.box(box, 0, 0)
        kit.grow(head, columns={0: 1})
        self._headline = kit.text(head, 0, 0, size="huge", bold=True, steady=True)
        self._subline = kit.text(head, 1, 0, wrap=True, vanishing=True)
        self._alerts_box = kit.box(box, 1, 0, framed=True)
        kit.grow(self._alerts_box, columns={0: 1})
        self._alerts = [
            kit.text(
                self._alerts_box, number, 0, bold=number % 2 == 0 and number < 2 * _ALERTS, wrap=True, vanishing=True
            )
            for number in range(2 * _ALERTS + 1)
        ]
        self._figures = kit.box(box, 2, 0)
        self._cards = [self._card(number, name) for number, name in enumerate(_CARDS)]
        self._lower = kit.box(box, 3, 0)
        kit.grow(self._lower, rows={0: 1}, columns={0: 3, 1: 2})
        left = kit.box(self._lower, 0, 0, framed=True)
        kit.grow(left, rows={1: 1}, columns={0: 1})
        top = kit.box(left, 0, 0)
        kit.grow(top, columns={0: 1})
        kit.text(top, 0, 0, bold=True, tall=True).set("Over time")
        self._chart = kit.chart(left, 1, 0)
        kit.choice(top, 0, 1, _CHARTS, self._choose_chart)
        right = kit.box(self._lower, 0, 1, framed=True)
        kit.grow(right, rows={1: 1}, columns={0: 1})
        kit.text(right, 0, 0, bold=True, tall=True).set("Time per stage, all threads together")
        columns = [("Stage", 150, True), ("Time", 98, False), ("Items", 70, False), ("Each", 70, False)]
        self._stages = kit.table(right, 1, 0, columns, lines=4)
        self._alerts_hidden = Shown(lambda hidden: kit.hide(self._alerts_box, hidden))
        self._figures_hidden = Shown(self._hide_figures)

    def _card(self, number: int, name: str) -> tuple[Text, Text]:
        self._kit.grow(self._figures, columns={number % _IN_A_ROW: 1})
        card = self._kit.box(self._figures, number // _IN_A_ROW, number % _IN_A_ROW, framed=True)
        self._kit.grow(card, columns={0: 1})
        self._kit.text(card, 0, 0, size="small").set(name, "dim")
        value = self._kit.text(card, 1, 0, size="large", bold=True, steady=True)
        return value, self._kit.text(card, 2, 0, size="small", steady=True)

    def update(self, glance: Glance) -> None:
        """Show what is known now."""
        run = glance.run
        headline, subline = headlines(glance)
        self._headline.set(*headline)
        self._subline.set(*subline)
        alerts = alert_lines(run)
        self._alerts_hidden.set(not alerts)
        for number, text in enumerate(self._alerts):
            text.set(*alerts[number] if number < len(alerts) else ("", "text"))
        self._figures_hidden.set(run is None)
        if run is not None:
            for (value, note), figure in zip(self._cards, figures(run, glance.quarantined), strict=True):
                value.set(*figure[0])
                note.set(*figure[1])
            self._stages.show(stage_rows(run.modules))
        self._charts = glance.charts
        self._show_chart()

    def _hide_figures(self, hidden: bool) -> None:
        for box in (self._figures, self._lower):
            self._kit.hide(box, hidden)

    def _choose_chart(self, name: str) -> None:
        self._chart_name = name
        self._show_chart()

    def _show_chart(self) -> None:
        if self._drawn is not None and self._drawn[0] is self._charts and self._drawn[1] == self._chart_name:
            return
        self._drawn = self._charts, self._chart_name
        series = getattr(self._charts, self._chart_name) if self._charts is not None else ()
        self._chart.show(in_handy_units(series), _NO_CHART[self._chart_name])


def headlines(glance: Glance) -> tuple[Words, Words]:
    """How it stands, and a line about it."""
    run = glance.run
    if glance.is_empty:
        return ("No run yet", "text"), (_NO_RUN, "dim")
    if glance.problem:
        return ("✕ The record of the runs cannot be shown", "bad"), (sentence(glance.problem), "text")
    if run is None:
        return ("Looking …", "dim"), ("", "dim")
    began = time.strftime("%d %B %Y, %H:%M", time.localtime(run.started))
    about = f"Run {run.run_id} ({run_kind(run.kind)}), begun {began}"
    if run.state == "running":
        words = f"{sentence(run.phase or run_kind(run.kind))}, for {time_text(run.duration_seconds)}"
        if run.silent_seconds > SILENT_SECONDS:
            about += f". ⚠ It has said nothing for {time_text(run.silent_seconds)}."
            return (words, "text"), (about, "warn")
        return (words, "text"), (about, "dim")
    sign, tone = _ENDS.get(run.state, ("", "text"))
    headline = f"{sign}{run_state(run.state)} after {time_text(run.duration_seconds)}"
    if run.state != "finished" and run.last_event is not None and run.last_event.message:
        about += f": {line(run.last_event.message)}"
    return (headline, tone), (about, "dim")


_ENDS: Final[dict[str, Words]] = {"finished": ("✓ ", "good"), "failed": ("✕ ", "bad"), "interrupted": ("■ ", "warn")}


def alert_lines(run: RunView | None) -> list[Words]:
    """Two lines for each alert: what is wrong, and what helps."""
    if run is None or not run.alerts:
        return []
    found: list[Words] = []
    for alert in run.alerts[:_ALERTS]:
        found.append((f"⚠ {sentence(alert.message)}", "warn"))
        found.append((f"What helps: {line(alert.fix)}" if alert.fix else "", "text"))
    if len(run.alerts) > _ALERTS:
        found.append((f"and {many(len(run.alerts) - _ALERTS, 'more alert')}", "dim"))
    return found


def figures(run: RunView, quarantined: int) -> list[Figure]:
    """What stands on the cards, in the order of `_CARDS`."""
    return [_samples(run, quarantined), _cache(run), _speed(run), _loss(run), *_memory(run), _errors(run), _off(run)]


def _samples(run: RunView, quarantined: int) -> Figure:
    left_out = run.skipped + run.failed
    note = f"{count_text(left_out)} left out, {count_text(quarantined)} in quarantine"
    return (f"{count_text(run.valid)} fine", "text"), (note, "warn" if left_out or quarantined else "dim")


def _cache(run: RunView) -> Figure:
    rate = run.cache_hit_rate
    entries = sum(cache.entries for cache in run.caches)
    if rate is None and not entries:
        return _NOTHING
    damaged = f", {count_text(run.cache_corruptions)} damaged" if run.cache_corruptions else ""
    note = f"{size_text(run.cache_bytes)} in {many(entries, 'entry', 'entries')}{damaged}"
    words = f"{size_text(run.cache_bytes)}" if rate is None else f"{rate:.0%} found"
    return (words, "text"), (note, "warn" if damaged else "dim")


def _speed(run: RunView) -> Figure:
    running = run.state == "running"
    if run.steps_per_second:
        samples = rate_text(run.samples_per_second, "samples") if run.samples_per_second and running else ""
        return (rate_text(run.steps_per_second, "steps"), "text"), (samples or many(run.steps, "step"), "dim")
    if not (run.entries_per_second and running):
        return _NOTHING
    return (rate_text(run.entries_per_second, "entries"), "text"), ("made or read; no step yet", "dim")


def _loss(run: RunView) -> Figure:
    if run.last_step is None:
        return _NOTHING
    loss, note = run.last_step.loss, f"step {count_text(run.last_step.step)}"
    return (("✕ not a number", "bad") if loss != loss else (f"{loss:.4f}", "text")), (note, "dim")


def _memory(run: RunView) -> tuple[Figure, Figure]:
    memory = run.memory
    if memory is None:
        return _NOTHING, _NOTHING
    swap = f", {memory_text(memory.swap)} swapped" if memory.swap >= 1 else ""
    note = f"at most {memory_text(memory.peak)}, {memory_text(memory.available)} free{swap}"
    gpu = _NOTHING if memory.gpu is None else ((memory_text(memory.gpu), "text"), ("of this training", "dim"))
    return ((memory_text(memory.used), "text"), (note, "dim")), gpu


def _errors(run: RunView) -> Figure:
    errors = [group for group in run.groups if group.status != "warning"]
    count = sum(group.count for group in errors)
    if not count:
        return ("None", "text"), (many(run.warned, "warning") if run.warned else "", "dim")
    by_module: Counter[str] = Counter()
    for group in errors:
        by_module[group.module] += group.count
    (module, most), *_ = by_module.most_common(1)
    return (f"✕ {count_text(count)}", "bad"), (f"{count_text(most)} in: {stage_name(module)}", "dim")


def _off(run: RunView) -> Figure:
    off = run.breakers_open
    if not off:
        return ("None", "text"), ("every stage is at work", "dim")
    return (f"⚠ {many(len(off), 'stage')}", "warn"), (", ".join(map(stage_name, off)), "warn")


def stage_rows(modules: Sequence[ModuleRow]) -> list[Row]:
    """Rows of the table of stages: of those that had something to do."""
    return [
        (
            row.module,
            (
                stage_name(row.module),
                short_time_text(row.seconds) if row.seconds < 60 else time_text(row.seconds),
                count_text(row.items),
                short_time_text(row.seconds / row.items) if row.items else NOTHING,
            ),
        )
        for row in modules
        if row.items or row.seconds >= _SHORTEST
    ]


def in_handy_units(series: Sequence[Series]) -> tuple[Series, ...]:
    """Memory of many megabytes in gigabytes."""
    most = max((value for one in series if one.unit == "MB" for _, value in one.points), default=0.0)
    if most < _GB_FROM:
        return tuple(series)
    return tuple(
        replace(one, unit="GB", points=tuple((at, value / 1024) for at, value in one.points))
        if one.unit == "MB"
        else one
        for one in series
    )
