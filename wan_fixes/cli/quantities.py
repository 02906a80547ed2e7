"""Times and sizes as people type them."""

from __future__ import annotations

import re
from typing import Final

import typer

from wan_fixes.health.text import size_from

_SECONDS: Final = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def seconds_of(text: str, option: str) -> float:
    """ "12h", "30d" or "8w" in seconds; `option` is named where it is none of these."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([hdw])", text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{option} {text!r} is not understood: write it like 12h, 30d or 8w")
    return float(match[1]) * _SECONDS[match[2]]


def bytes_of(text: str, option: str) -> int:
    """ "500MB" or "50GB" in bytes; `option` is named where it is nothing of that kind."""
    size = size_from(text)
    if size is None:
        raise typer.BadParameter(f"{option} {text!r} is not understood: write it like 500MB or 50GB")
    return size
