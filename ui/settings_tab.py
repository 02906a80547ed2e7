"""The plugin's switches as a tab in OneTrainer's window: what is switched is saved at once."""

from __future__ import annotations

import logging
import textwrap
from typing import Any

from wan_fixes import __version__
from wan_fixes.errors import WanFixesError
from wan_fixes.hosts.onetrainer.import_hooks import outcomes
from wan_fixes.settings import Settings, settings_path

logger = logging.getLogger(__name__)

_TEXT_WIDTH = 100  # characters after which a text goes on in the next line: toolkits wrap by themselves, but narrowly

_SWITCHES = {
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
        "A base model may be a name that `wan models list` shows, such as t2v-A14B@2.2.0: it is fetched, and its files "
        "are compared with their digests, before it is loaded. Off: base models are paths and hub ids only.",
    ),
    "check_models": (
        "Check of model files",
        "Looks for missing, damaged and wrong model files before they are loaded. Off: they are loaded unseen.",
    ),
}
_CHOICES = {
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


class SettingsTab:
    """Fills one tab; made anew for each window."""

    title = "WAN fixes"

    def build(self, components: Any, frame: Any) -> None:
        """Lay the widgets into `frame`, in OneTrainer's own style."""
        self._components = components
        settings = Settings.load()
        self._values = {name: getattr(settings, name) for name in (*_SWITCHES, *_CHOICES)}
        self._saved = dict(self._values)
        state = components.state(self._values)
        row = 0
        for name, (label, tooltip) in _SWITCHES.items():
            components.label(frame, row, 0, label, tooltip=tooltip)
            components.switch(frame, row, 1, state, name, command=self._save)
            row += 1
        for name, (label, tooltip, texts) in _CHOICES.items():
            components.label(frame, row, 0, label, tooltip=tooltip)
            values = [(text, value) for value, text in texts.items()]
            components.options_kv(frame, row, 1, values, state, name, command=lambda _value: self._save())
            row += 1
        self._note = components.label(frame, row, 1, _state_of(settings))
        components.label(frame, row + 1, 0, f"Version {__version__}", tooltip=f"The settings are in {settings_path()}.")
        for number, message in enumerate(outcome.message for outcome in outcomes() if outcome.message):
            components.label(frame, row + 2 + number, 1, _wrapped(message))

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
            self._say(f"Not saved: {error}")
            return
        self._saved = dict(self._values)
        when = "when OneTrainer is started again" if "enabled" in changed else "from the next training on"
        self._say(f"Saved. It holds {when}.")

    def _say(self, text: str) -> None:
        self._components.set_label_text(self._note, _wrapped(text))


def _state_of(settings: Settings) -> str:
    return "" if settings.enabled else "The plugin is switched off, and nothing of it is at work but this tab."


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, _TEXT_WIDTH) for line in text.splitlines())
