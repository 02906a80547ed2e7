"""How hard the tests try: `tests/run.sh --full` sets WAN_FIXES_FULL, and what is slow is then done more often."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("WAN_FIXES_FULL") == "1"


def times(quick: int, full: int) -> int:
    """So many examples, kills or steps."""
    return full if IS_FULL else quick
