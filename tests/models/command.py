"""Runs `wan models` in this process."""

from __future__ import annotations

import pytest

from wan_fixes.cli.main import run


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["models", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
