"""What every command looks up costs it no library that reads clips or models."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_line_starts_without_what_reads_clips_and_models() -> None:
    heavy = ("av", "numpy", "PIL", "torch", "wan_fixes.media", "wan_fixes.models", "wan_fixes.hosts.standalone")
    code = f"import sys, wan_fixes.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
