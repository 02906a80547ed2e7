"""Each run of the standalone host has a log file in its workspace, whose id the run database has too."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.health.run_log import LOG_FILE
from wan_fixes.hosts.standalone.host import open_run
from wan_fixes.settings import Settings

logger = logging.getLogger("wan_fixes.pipeline.example")


def lines(workspace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workspace / LOG_FILE).read_text(encoding="utf-8").splitlines()]


def test_what_is_said_in_a_run_is_in_its_file_with_the_id_of_its_record(workplace: Any) -> None:
    preset = workplace.preset()
    with open_run(preset, Settings(), None) as host:
        host.say("note", "nine clips were found")
        record = host.database.run(host.run.id)
    assert record is not None
    assert {line["run"] for line in lines(preset.workspace_dir)} == {record.config["correlation_id"]}
    assert "nine clips were found" in [line["message"] for line in lines(preset.workspace_dir)]


def test_what_ends_a_run_is_in_its_file(workplace: Any) -> None:
    preset = workplace.preset()
    with pytest.raises(ZeroDivisionError), open_run(preset, Settings(), None):
        raise ZeroDivisionError("on purpose")
    assert "ZeroDivisionError: on purpose" in lines(preset.workspace_dir)[-1]["exception"]


def test_without_the_setting_there_is_no_file(workplace: Any) -> None:
    preset = workplace.preset()
    with open_run(preset, Settings(log_file=False), None) as host:
        assert host.database.run(host.run.id).config["correlation_id"]
    assert not (preset.workspace_dir / LOG_FILE).exists()
