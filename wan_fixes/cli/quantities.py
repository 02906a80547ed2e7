"""Times and sizes as people type them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import typer

_SECONDS: Final = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_BYTES: Final = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def seconds_of(text: str, option: str) -> float:
    """ "12h", "30d" or "8w" in seconds; `option` is named where it is none of these."""
    return _quantity(text, _SECONDS, option, "12h, 30d or 8w")


def bytes_of(text: str, option: str) -> int:
    """ "500MB" or "50GB" in bytes; `option` is named where it is nothing of that kind."""
    return int(_quantity(text, _BYTES, option, "500MB or 50GB"))


def _quantity(text: str, units: Mapping[str, float], option: str, examples: str) -> float:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise typer.BadParameter(f"{option} {text!r} is not understood: write it like {examples}")
    return float(match[1]) * units[match[2]]
