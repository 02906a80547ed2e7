"""Good, odd and bad media that make themselves, each with what must be said of it."""

from __future__ import annotations

from pathlib import Path

import av
from av.codec.codec import UnknownCodecError

from . import broken, foreign, healthy, images, names, odd
from .cases import Begins, Case, Either, Picture, Rejected, Serves

__all__ = ["CASES", "Begins", "Case", "Either", "Picture", "Rejected", "Serves", "make"]

CASES: tuple[Case, ...] = (
    *healthy.CASES,
    *odd.CASES,
    *broken.CASES,
    *foreign.CASES,
    *names.CASES,
    *images.CASES,
)


def make(case: Case, folder: Path) -> Path | None:
    """Make the file of `case` in a folder of its own below `folder`; None where this machine cannot."""
    if case.impossible or not _can_encode(case.encoder):
        return None
    own = folder / f"{CASES.index(case):03d}"
    own.mkdir(parents=True, exist_ok=True)
    path = own / case.file
    case.make(path)
    return path


def _can_encode(name: str) -> bool:
    try:
        return not name or av.Codec(name, "w") is not None
    except UnknownCodecError:
        return False
