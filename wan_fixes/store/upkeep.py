"""Verifying and mending one store from the outside: it is opened for that, and closed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wan_fixes.errors import EntryError
from wan_fixes.store.repair import Repaired, repair
from wan_fixes.store.samples import SampleStore

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class VerifiedStore:
    """What was found: how many entries there are, and what is damaged, foreign or missing."""

    root: Path
    entries: int
    problems: tuple[EntryError, ...]


@dataclass(frozen=True)
class RepairedStore:
    """What was done, and how many entries there are now."""

    root: Path
    entries: int
    repaired: Repaired
    index_was_damaged: bool


def verify_store(root: Path, on_progress: OnProgress) -> VerifiedStore:
    """Read every entry and compare its checksums; no entry is changed.

    `on_progress` is called with how many files are done and how many entries there are; what it raises ends the work.
    """
    with SampleStore(root) as store:
        entries = store.stats().entries
        on_progress(0, entries)
        problems = [*store.damages, *store.verify(lambda done: on_progress(done, entries))]
        return VerifiedStore(root, entries, tuple(problems))


def repair_store(root: Path, on_progress: OnProgress) -> RepairedStore:
    """Verify, set aside what is damaged or foreign, and make the index anew. `on_progress` as in `verify_store`."""
    with SampleStore(root) as store:
        entries = store.stats().entries
        on_progress(0, entries)
        repaired = repair(store, lambda done: on_progress(done, entries))
        return RepairedStore(root, store.stats().entries, repaired, bool(store.damages))
