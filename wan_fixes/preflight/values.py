"""Values out of somebody's file, of any type: as numbers, and as text for messages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from wan_fixes.health.text import plain

_SHOWN: Final = 60  # characters of a value that a message repeats


def finite_number(value: Any) -> float | None:
    """A value, or the text that spells it, as a finite number; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def of_system(error: Exception) -> str:
    """What the system says against a path, in its words alone."""
    return getattr(error, "strerror", None) or str(error)


def shown(value: Any) -> str:
    """A value from a file as a short, safe text."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1000:
        return "a number without end"  # Python refuses to spell it
    return plain(json.dumps(value, ensure_ascii=False, default=str), _SHOWN)
