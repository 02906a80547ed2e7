"""Each requirement on model files (M1 to M19) has tests that bear its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("row", [f"m{number}" for number in range(1, 20)])
def test_every_row_has_a_test_named_after_it(row: str) -> None:
    named = [
        path for path in TESTS.rglob("test_*.py") if re.search(rf"^def test_{row}_", path.read_text("utf-8"), re.M)
    ]
    assert named
