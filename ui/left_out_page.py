"""The page of what was left out: which files, why, and what helps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from wan_fixes.health import SampleGroup, SampleRecord, plain
from wan_fixes.health.numbers import count_text, many
from wan_fixes.ui.actions import Actions, Task
from wan_fixes.ui.desktop import open_folder
from wan_fixes.ui.kit import Kit, Row
from wan_fixes.ui.watch import MOST_LEFT_OUT, Glance
from wan_fixes.ui.words import kind_name, line, sample_state, short, stage_name

_STATUSES: Final = {"left out": ("skipped", "failed"), "warnings": ("warning",)}
_CHOICES: Final = {"left out": "Left out", "warnings": "Used, with a warning"}
_NOTHING: Final = {
    "left out": "Nothing was left out. Files that cannot be used are named here, with the reason and what helps.",
    "warnings": "There is no warning.",
}
_NO_RUN: Final = "Files that a run cannot use are named here, with the reason and what helps."
_COPY_LIMIT: Final = 4096  # characters of a path: one that is cut is of no use
_DETAILS_LIMIT: Final = 20
"""So many of the chosen files are described; more are copied all the same."""


class LeftOutPage:
    """Laid out once, updated about once a second."""

    title = "Left out"

    def __init__(self, kit: Kit, box: Any, actions: Actions, look_for: Callable[..., None]) -> None:
        self._kit = kit
        self._actions = actions
        self._look_for = look_for
        self._which = next(iter(_STATUSES))
        self._samples: dict[str, SampleRecord] = {}
        self._listed: tuple[SampleRecord, ...] = ()
        self._has_run = False
        self._tried: Task | None = None
        kit.grow(box, rows={2: 1}, columns={0: 1})
        self._summary = kit.text(box, 0, 0, size="large", bold=True)
        self._find(kit.box(box, 1, 0))
        middle = kit.box(box, 2, 0)
        kit.grow(middle, rows={0: 1}, columns={0: 5, 1: 2})
        files = kit.box(middle, 0, 0)
        kit.grow(files, rows={0: 1}, columns={0: 1})
        columns = [("File", 230, False), ("Why", 240, True), ("When", 74, False)]
        self._table = kit.table(files, 0, 0, columns, lines=8, on_choose=self._show_details, on_copy=self._copy)
        groups = kit.box(middle, 0, 1)
        kit.grow(groups, rows={0: 1}, columns={0: 1})
        group_columns = [("Where", 120, True), ("Kind", 110, False), ("Files", 60, False)]
        self._groups = kit.table(groups, 0, 0, group_columns, lines=8)
        self._details = kit.lines(box, 3, 0, lines=5)
        buttons = kit.box(box, 4, 0)
        kit.grow(buttons, columns={3: 1})
        self._copy_button = kit.button(buttons, 0, 0, "Copy", self._copy)
        self._folder_button = kit.button(buttons, 0, 1, "Open folder", self._open_folder)
        self._again_button = kit.button(buttons, 0, 2, "Try again", self._try_again)
        self._said = kit.text(buttons, 0, 3)
        kit.on_key(box, "F5", self._try_again)
        self._show_details()

    @property
    def wants(self) -> Mapping[str, Any]:
        """What the watch should ask for while this page is in view."""
        return {"charts": False, "models": False, "statuses": _STATUSES[self._which]}

    def _find(self, box: Any) -> None:
        kit = self._kit
        kit.grow(box, columns={2: 1})
        kit.choice(box, 0, 0, _CHOICES, self._choose)
        kit.text(box, 0, 1).set("Find")
        self._entry = kit.entry(box, 0, 2, lambda text: self._look_for(filter_text=text))
        self._count = kit.text(box, 0, 3)

    def update(self, glance: Glance) -> None:
        """Show what is known now."""
        run = glance.run
        self._has_run = run is not None
        if glance.left_out is not self._listed:
            self._listed = glance.left_out
            self._samples = {_key(sample): sample for sample in glance.left_out}
            self._table.show([_row(sample) for sample in glance.left_out])
        if glance.is_empty:
            self._summary.set("No run yet", "text")
        elif glance.problem:
            self._summary.set("✕ The record of the runs cannot be shown", "bad")
        elif run is None:
            self._summary.set("Looking …", "dim")
        else:
            left_out = run.skipped + run.failed
            known = f" of {count_text(run.valid + left_out)}" if run.valid else ""
            quarantined = f", {many(glance.quarantined, 'file')} in quarantine" if glance.quarantined else ""
            warned = f", {many(run.warned, 'file')} with a warning" if run.warned else ""
            self._summary.set(f"{count_text(left_out)}{known} samples left out{quarantined}{warned}", "text")
        shown, total = len(glance.left_out), glance.left_out_total
        more = f"the first {count_text(shown)} of {count_text(total)}" if total > shown else many(total, "file")
        self._count.set(more, "dim")
        self._groups.show(group_rows(run.groups, _STATUSES[self._which]) if run is not None else [])
        self._show_details()
        self._say_task()

    def _choose(self, which: str) -> None:
        self._which = which
        self._look_for(statuses=_STATUSES[which])

    def _show_details(self) -> None:
        chosen = self._chosen()
        for button in (self._copy_button, self._folder_button, self._again_button):
            button.enable(bool(chosen))
        if not chosen:
            self._details.set(self._hint())
            return
        lines = [details(sample) for sample in chosen[:_DETAILS_LIMIT]]
        if len(chosen) > _DETAILS_LIMIT:
            lines.append(f"and {many(len(chosen) - _DETAILS_LIMIT, 'more file')}")
        self._details.set("\n\n".join(lines))

    def _hint(self) -> str:
        if self._samples:
            return "Choose a file to see all that is known of it; with Ctrl or Shift, several."
        if self._entry.get():
            return "No file has this text in its name, reason, stage or kind."
        return _NOTHING[self._which] if self._has_run else _NO_RUN

    def _chosen(self) -> list[SampleRecord]:
        return [self._samples[key] for key in self._table.chosen() if key in self._samples]

    def _copy(self) -> None:
        chosen = self._chosen()
        if chosen:
            self._kit.copy("\n".join(copied(sample) for sample in chosen))
            self._said.set(f"Copied: {many(len(chosen), 'file')} with reason and what helps.", "dim")

    def _open_folder(self) -> None:
        chosen = self._chosen()
        if chosen:
            folder = self._actions.folder_of(chosen[0].path)
            problem = open_folder(folder)
            self._said.set(problem or f"Opened: {line(folder)}", "warn" if problem else "dim")

    def _try_again(self) -> None:
        chosen = self._chosen()
        if not chosen:
            return
        task = self._actions.try_again([sample.path for sample in chosen])
        self._said.set(line(" ".join(task.lines)) or "Trying again …", "warn" if task.state == "failed" else "text")
        self._tried = task

    def _say_task(self) -> None:
        task = self._tried
        state = None if task is None else task.state  # before the lines: what has ended writes none
        if task is not None and task.lines:
            self._said.set(line(task.lines[-1]), "bad" if state == "failed" else "text")
            if state != "running":
                self._tried = None  # what is done next is said in its place


def group_rows(groups: Sequence[SampleGroup], statuses: Sequence[str]) -> list[Row]:
    """Errors by module and kind, the most frequent first."""
    return [
        (
            f"{group.status} {group.module} {group.kind}",
            (stage_name(group.module), kind_name(group.kind), count_text(group.count)),
        )
        for group in groups
        if group.status in statuses
    ]


def details(sample: SampleRecord) -> str:
    """All that is known of a sample."""
    path = Path(sample.path)
    when = time.strftime("%d %B, %H:%M:%S", time.localtime(sample.time))
    what = f"{sample_state(sample.status)} in: {stage_name(sample.module)}, {when}"
    lines = [
        f"{plain(path.name, limit=_COPY_LIMIT)}  ({what})",
        f"Why: {plain(sample.reason)}",
        f"What helps: {plain(sample.fix)}" if sample.fix else "",
        f"Folder: {plain(path.parent, limit=_COPY_LIMIT)}",
    ]
    return "\n".join(filter(None, lines))


def copied(sample: SampleRecord) -> str:
    """A sample as a line for a spreadsheet: path, reason, fix. No name can begin a line of its own."""
    return "\t".join((plain(sample.path, limit=_COPY_LIMIT), plain(sample.reason), plain(sample.fix)))


def _key(sample: SampleRecord) -> str:
    return f"{sample.status} {sample.path} {sample.reason}"  # of a path there may be several warnings


@lru_cache(maxsize=2 * MOST_LEFT_OUT)
def _row(sample: SampleRecord) -> Row:
    """Remembered: making a text safe takes time, and most of a list is there again a second later."""
    when = time.strftime("%H:%M:%S", time.localtime(sample.time))
    return _key(sample), (short(Path(sample.path).name), short(sample.reason), when)
