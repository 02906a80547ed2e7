"""What `wan check` and `wan train` say of a preset as a whole, and the corrected copy of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan_fixes.cli.console import err, out, shown, why_and_fix
from wan_fixes.cli.tables import small_table

if TYPE_CHECKING:
    from wan_fixes.preflight import ConfigFinding

_STYLES = {"error": "red", "warning": "yellow"}


def show_findings(findings: list[ConfigFinding]) -> None:
    """A table of them, if there are any."""
    if not findings:
        return
    table = small_table("field", "verdict", "what and why, and what helps")
    for finding in findings:
        table.add_row(
            shown(finding.field),
            shown(finding.severity, _STYLES[finding.severity]),
            why_and_fix(f"{finding.what}: {finding.why}", finding.fix),
        )
    out.print(table)
    out.print()


def write_corrected(content: dict[str, Any], findings: list[ConfigFinding], preset: Path, file: Path) -> None:
    """Write a corrected copy of the preset to `file`, and say on standard error what is other than it was.

    Raises
    ------
    UserError
        If there is such a file already: nothing of the user's is replaced. If it cannot be written.
    """
    from wan_fixes.hosts.standalone.new_file import write_new
    from wan_fixes.preflight import corrected, corrections_in, keeping_paths

    corrections = corrections_in(findings)
    if not corrections:
        err.print("there is nothing that can be corrected for certain: no copy is written")
        return
    target = file.expanduser().absolute()
    config = keeping_paths(
        corrected(content, findings), base=Path.cwd(), beside=preset.expanduser().absolute().parent, new=target.parent
    )
    write_new(target, json.dumps(config, indent=4) + "\n", "the corrected preset")
    err.print(shown(f"written: {file}, in which"), soft_wrap=True)
    for correction in corrections:
        err.print(shown(f"  {correction.field} is {json.dumps(correction.value)}"), soft_wrap=True)
