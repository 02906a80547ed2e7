"""The checks of a configuration on a preset's file, before it is read as a preset, which ends at the first fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wan_fixes.hosts.standalone.migrations import has_old_spelling, migrate_train_config
from wan_fixes.hosts.standalone.reading import read_json
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.layout import models_root
from wan_fixes.preflight import ConfigFinding, check_config
from wan_fixes.settings import Settings


def check_preset_file(path: Path, settings: Settings, **changes: Any) -> tuple[dict[str, Any], list[ConfigFinding]]:
    """What a preset's file holds, and what is found of it with `changes` to its fields; errors first.

    Raises
    ------
    UserError
        If it cannot be read as JSON. What is no object holds nothing, and nothing is found of it.
    """
    file = path.expanduser().absolute()
    content = read_json(file, "preset")
    if not isinstance(content, dict):
        return {}, []
    machine = Hardware.of_this_machine(models_root())
    config = {**migrate_train_config(content), **changes}
    found = check_config(config, base=Path.cwd(), beside=file.parent, gpu=machine, settings=settings)
    return content, [_as_it_can_be_written(finding, content) for finding in found]


def _as_it_can_be_written(finding: ConfigFinding, content: dict[str, Any]) -> ConfigFinding:
    """Without its correction where the file has the field's old name: OneTrainer would write the old value over it."""
    if finding.correction is not None and has_old_spelling(content, finding.correction.field):
        return replace(finding, correction=None)
    return finding
