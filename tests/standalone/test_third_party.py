"""A plugin by others, on the same hooks, in the standalone host."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.hosts.standalone.trainer import train
from wan_fixes.settings import Settings

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "trigger_word"


def test_the_example_plugin_reaches_every_caption(workplace: Any, caplog: pytest.LogCaptureFixture) -> None:
    preset = workplace.preset(epochs=1)
    with caplog.at_level(logging.WARNING):
        result = train(preset, settings=Settings(plugin_folders=[str(FOLDER)]))
    assert result.finished and result.valid > 0
    assert f"the trigger word is in {result.valid} captions" in caplog.text
