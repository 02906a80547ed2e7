"""Trains in a checkout without its UI: runs its own `scripts/train.py` with its own Python, in its own folder."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wan_fixes.errors import CriticalError, UserError
from wan_fixes.hosts.onetrainer.checkout import require_checkout
from wan_fixes.hosts.onetrainer.state import find_enabled
from wan_fixes.settings import Settings
from wan_fixes.wan.variants import VARIANTS

_SCRIPT = "scripts/train.py"
# What a configuration holds itself, or else the field that names a file with it and that field's default.
_LISTS = {
    "concepts": ("concept_file_name", "training_concepts/concepts.json"),
    "samples": ("sample_definition_file_name", "training_samples/samples.json"),
}


def train_in_checkout(path: Path, config: Path) -> None:
    """Train what a preset or saved configuration says; OneTrainer's output goes to this process's own.

    Relative paths in the configuration are taken from the checkout, as its UI takes them.

    Raises
    ------
    UserError
        When the plugin is not enabled there, or is switched off and the configuration is for WAN; when the
        configuration cannot be read, or leans on a file that is not there.
    CriticalError
        When OneTrainer ends with an error.
    """
    checkout = require_checkout(path)
    content = _read(config)
    entry = find_enabled(checkout)
    if entry is None:
        raise UserError(
            "the plugin is not enabled in this OneTrainer",
            path=checkout,
            reason="without it there is no WAN, and one bad file ends a training",
            fix=f'wan enable "{checkout}"',
        )
    model_type = content.get("model_type")
    if isinstance(model_type, str) and model_type in VARIANTS and not Settings.load().enabled:
        raise UserError(
            "the plugin is switched off in its settings",
            path=config,
            reason=f"OneTrainer alone does not know {model_type}, and would go on as Stable Diffusion 1.5",
            fix="set enabled to true in the settings",
        )
    _require_lists(checkout, config, content)
    with _arguments(config.absolute(), content) as arguments:
        code = _run([entry.python, _SCRIPT, *arguments], checkout)
    if code != 0:
        raise CriticalError(
            "OneTrainer ended with an error",
            reason=f"exit code {code}",
            fix="what it printed last says why",
        )


def _require_lists(checkout: Path, config: Path, content: dict[str, Any]) -> None:
    """A preset says nothing of the data: stock takes concepts and samples from files that its window writes."""
    lacking = []
    for name, (field, default) in _LISTS.items():
        file = content.get(field, default)
        if content.get(name) is None and isinstance(file, str) and not (checkout / file).is_file():
            lacking.append(f"it holds no {name}, and there is no {checkout / file}")
    if lacking:
        raise UserError(
            "the preset does not say what to train on",
            path=config,
            reason="; ".join(lacking),
            fix="put concepts and samples into the preset (the window's Export does so), "
            "or open OneTrainer's window once, which makes these files, and name your clips there",
        )


@contextmanager
def _arguments(config: Path, content: dict[str, Any]) -> Iterator[list[str]]:
    """How the script is told: a saved configuration has a version to be migrated from, a preset is only some fields."""
    if "__version" in content:
        yield ["--config-path", str(config)]
        return
    with tempfile.TemporaryDirectory(prefix="wan-fixes-") as folder:
        nothing = Path(folder) / "nothing.json"
        nothing.write_text("{}", encoding="utf-8")
        yield ["--preset-path", str(config), "--config-path", str(nothing)]


def _read(config: Path) -> dict[str, Any]:
    try:
        content = json.loads(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise UserError("the preset cannot be read", path=config, reason=reason, fix="name a preset") from error
    if not isinstance(content, dict):
        raise UserError("the preset cannot be read", path=config, reason="it holds no JSON object", fix="name a preset")
    return content


def _run(command: list[str], checkout: Path) -> int:
    # PYTHONPATH would put this package's own environment before OneTrainer's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        process = subprocess.Popen(command, cwd=checkout, env=environment)
    except OSError as error:
        raise UserError(
            "OneTrainer's Python cannot be started",
            path=command[0],
            reason=error.strerror or str(error),
            fix="repair the environment with OneTrainer's install or update script",
        ) from error
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()  # Ctrl-C reaches OneTrainer too, which saves a backup if it is told to
        raise
