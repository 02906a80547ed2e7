"""The page with the plugin's switches: what is switched is saved at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from wan_fixes import __version__
from wan_fixes.errors import WanFixesError
from wan_fixes.health import plain
from wan_fixes.hosts.onetrainer.import_hooks import outcomes
from wan_fixes.settings import Settings, settings_path
from wan_fixes.ui.kit import Kit
from wan_fixes.ui.watch import Glance
from wan_fixes.ui.words import line

logger = logging.getLogger(__name__)

_SWITCHES: Final = {
    "enabled": (
        "Plugin",
        "Off: OneTrainer works as if the plugin were not installed, but for this tab. "
        "Holds when OneTrainer is started again.",
    ),
    "validate_pipelines": (
        "Validated data pipeline",
        "Leaves broken clips out and names them, and trains on no stale cache entry. Off: OneTrainer's own data "
        "pipeline, in which one bad file ends the training.",
    ),
    "ensure_models": (
        "Fetching of model files",
        "A base model may be a name that the page Models shows: it is fetched, and its files are compared with their "
        "digests, before it is loaded. Off: base models are paths and hub ids only.",
    ),
    "check_models": (
        "Check of model files",
        "Looks for missing, damaged and wrong model files before they are loaded. Off: they are loaded unseen.",
    ),
    "check_configuration": (
        "Check of the configuration",
        "Says before a training what in its configuration cannot go well. Off: it is begun as it is.",
    ),
}
_CHOICES: Final = {
    "missing_captions": (
        "Clips without a caption",
        "What becomes of a clip that has no caption.",
        {"empty": "trained with an empty prompt", "skip": "left out"},
    ),
    "short_clips": (
        "Clips that are too short",
        "What becomes of a clip with fewer frames than a sample has.",
        {"skip": "left out", "pad": "last frame held", "loop": "played again from the start"},
    ),
    "frame_window": (
        "Part of a clip that is trained",
        "Where the frames of a sample come from, in a clip that is longer.",
        {
            "random": "drawn for each variation",
            "start": "its start",
            "centre": "its middle",
            "spread": "spread over all of it",
            "chunks": "one window after another",
        },
    ),
    "incomplete_batches": (
        "Incomplete batches",
        "What becomes of the last clips of a size when they do not fill a batch.",
        {"pad": "filled up with placeholders", "drop": "left out"},
    ),
}


class SettingsPage:
    """Laid out once; nothing on it changes by itself."""

    title = "Settings"
    wants: Mapping[str, Any] = {"charts": False, "models": False, "statuses": ()}

    def __init__(self, kit: Kit, box: Any) -> None:
        components = kit.components
        self._problem = ""
        try:
            settings = Settings.load()
        except WanFixesError as error:
            self._problem = line(error)
            settings = Settings()
        # A setting of another version has no place in this one.
        switches = {name: texts for name, texts in _SWITCHES.items() if hasattr(settings, name)}
        self._values = {name: getattr(settings, name) for name in (*switches, *_CHOICES)}
        self._saved = dict(self._values)
        state = components.state(self._values)
        kit.grow(box, rows={1: 1}, columns={0: 1})
        self._note = kit.text(box, 0, 0, bold=True, wrap=True, vanishing=True)
        if self._problem:
            self._note.set(f"✕ {self._problem}", "bad")
        else:
            self._note.set(state_of(settings), "warn")
        rows = kit.scrolling(box, 1, 0)
        kit.grow(rows, columns={2: 1})
        row = 0
        for name, (label, what) in switches.items():
            components.label(rows, row, 0, label)
            kit.reachable(components.switch(rows, row, 1, state, name, command=self._save))
            kit.text(rows, row, 2, wrap=True).set(what, "dim")
            row += 1
        for name, (label, what, texts) in _CHOICES.items():
            components.label(rows, row, 0, label)
            values = [(text, value) for value, text in texts.items()]
            kit.reachable(components.options_kv(rows, row, 1, values, state, name, command=lambda _value: self._save()))
            kit.text(rows, row, 2, wrap=True).set(what, "dim")
            row += 1
        about = kit.box(rows, row, 0, span=3)
        kit.grow(rows, rows={row + 1: 1})
        kit.grow(about, columns={0: 1})
        kit.text(about, 0, 0, wrap=True).set(
            f"Version {__version__}. The settings are in {plain(settings_path())}.", "dim"
        )
        for number, message in enumerate(outcome.message for outcome in outcomes() if outcome.message):
            kit.text(about, 1 + number, 0, wrap=True).set(f"⚠ {line(message)}", "warn")

    def update(self, _glance: Glance) -> None:
        """Nothing changes by itself."""

    def _save(self) -> None:
        """Write what has changed into the settings file as it is by now, and say from when it holds."""
        changed = {name for name, value in self._values.items() if value != self._saved[name]}
        if not changed:  # a widget may report one change more than once
            return
        try:
            settings = Settings.load()
            for name in changed:
                setattr(settings, name, self._values[name])
            settings.save()
        except WanFixesError as error:
            logger.warning("%s", error)
            self._note.set(f"✕ Not saved: {line(error)}", "bad")
            return
        self._saved = dict(self._values)
        when = "when OneTrainer is started again" if "enabled" in changed else "from the next training on"
        self._note.set(f"Saved. It holds {when}.", "good")


def state_of(settings: Settings) -> str:
    """What the user should know about the settings as they are."""
    return "" if settings.enabled else "The plugin is switched off, and nothing of it is at work but this tab."
