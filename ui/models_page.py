"""The page of the model files: what is there, and what is being fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wan_fixes.health.numbers import many, time_text
from wan_fixes.health.text import size_text
from wan_fixes.ui.kit import Kit, Row
from wan_fixes.ui.models_view import DOWNLOADING, ModelRow
from wan_fixes.ui.theme import Tone
from wan_fixes.ui.watch import Glance
from wan_fixes.ui.words import NOTHING, line

_STATES: Final = {
    "COMPLETE": "✓ complete",
    "PARTIAL": "… in part",
    "CORRUPT": "✕ damaged",
    "VERIFYING": "… being checked",
    "NOT_PRESENT": "not here",
    "DOWNLOADING": "↓ being fetched",
}
_HINT: Final = (
    "A base model may be a name, such as t2v-A14B@2.2.0 (`wan models list` shows all): what is missing is fetched "
    "before it is loaded. What is here or on its way shows below."
)


class ModelsPage:
    """Laid out once, updated about once a second."""

    title = "Models"
    wants: Mapping[str, Any] = {"charts": False, "models": True, "statuses": ()}

    def __init__(self, kit: Kit, box: Any) -> None:
        kit.grow(box, rows={3: 1}, columns={0: 1})
        self._headline = kit.text(box, 0, 0, size="large", bold=True)
        self._hint = kit.text(box, 1, 0, wrap=True)
        self._hint.set(_HINT, "dim")
        self._progress = kit.progress(box, 2, 0)
        columns = [("Model", 220, False), ("State", 130, False), ("Here", 90, False), ("To fetch", 90, False)]
        self._table = kit.table(box, 3, 0, [*columns, ("", 260, True)], lines=8, on_choose=self._show_note)
        self._note = kit.lines(box, 4, 0, lines=3)
        self._notes: dict[str, str] = {}

    def update(self, glance: Glance) -> None:
        """Show what is known now."""
        rows = glance.models
        self._headline.set(*(headline(rows) if glance.number else ("Looking …", "dim")))
        fetched = [row.progress for row in rows if row.state == DOWNLOADING and row.progress is not None]
        self._progress.set(sum(fetched) / len(fetched) if fetched else None)
        self._table.show([model_row(row) for row in rows])
        self._notes = {row.name: row.note for row in rows}
        self._show_note()

    def _show_note(self) -> None:
        chosen = self._table.chosen()
        notes = [f"{line(name)}: {line(self._notes.get(name) or 'nothing is wrong with it')}" for name in chosen]
        self._note.set("\n".join(notes) or "Choose a model to see what there is to say about it.")


def headline(rows: Sequence[ModelRow]) -> tuple[str, Tone]:
    """The models in a few words."""
    if not rows:
        return "No model is here yet", "text"
    fetched = [row for row in rows if row.state == DOWNLOADING]
    if fetched:
        row = fetched[0]
        more = f", and {many(len(fetched) - 1, 'more model')}" if len(fetched) > 1 else ""
        return f"↓ {line(row.name)} is being fetched{_speed(row)}{more}", "text"
    damaged = sum(row.state == "CORRUPT" for row in rows)
    if damaged:
        return f"✕ {many(damaged, 'model is', 'models are')} damaged", "bad"
    complete = sum(row.state == "COMPLETE" for row in rows)
    return f"{many(complete, 'model is', 'models are')} complete, of {len(rows)} that are here in part or whole", "text"


def model_row(row: ModelRow) -> Row:
    """A row of the table."""
    if row.state == DOWNLOADING:
        note = _speed(row).removeprefix(": ") or "begun"
    else:
        note = line(row.note)
    cells = (
        line(row.name),
        _STATES.get(row.state) or f"? {line(row.state).lower()}",
        size_text(row.bytes_there) if row.bytes_there else NOTHING,
        size_text(row.bytes_needed) if row.bytes_needed else NOTHING,
        note,
    )
    return row.name, cells


def _speed(row: ModelRow) -> str:
    """How far a download is, how fast, and for how long still."""
    parts = []
    if row.progress is not None:
        parts.append(f"{row.progress:.0%}")
    if row.bytes_per_second:
        parts.append(f"{size_text(row.bytes_per_second)}/s")
        if row.bytes_needed:
            parts.append(f"{time_text(row.bytes_needed / row.bytes_per_second)} left")
    return f": {', '.join(parts)}" if parts else ""
