"""Runs patches right after OneTrainer has imported the modules that they change, and never breaks an import.

A finder at the head of `sys.meta_path` wraps the loader of the modules that the table names, and only when their file
lies in an enabled checkout: other programs have a package `modules` too.
"""

from __future__ import annotations

import importlib
import importlib.abc
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from wan_fixes.hosts.onetrainer.patching import Patch, undo_all

__all__ = ["Outcome", "arm", "disarm", "is_armed", "outcomes"]

_APPLIED: Final = "__wan_fixes_patches__"  # on a patched module: names of the patches it has had
_MISSING: Final = object()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one patch in this process."""

    patch: str
    module: str
    status: Literal["applied", "missing", "failed"]
    message: str = ""
    """What does not work, and why; empty when it was applied."""


_outcomes: dict[str, Outcome] = {}


def outcomes() -> list[Outcome]:
    """What became of the patches whose modules were imported so far."""
    return list(_outcomes.values())


def arm(patches: Iterable[Patch], checkout: Path) -> None:
    """Have `patches` applied to the modules of `checkout`: now to those imported already, to the others when they are.

    Arming again adds what is new; no patch is applied twice to a module.
    """
    finder = _armed_finder()
    if finder is None:
        finder = PatchFinder()
        sys.meta_path.insert(0, finder)
    finder.add(patches, checkout)
    for name in finder.modules():
        module = sys.modules.get(name)
        if module is not None and finder.is_ours(getattr(module, "__file__", None)):
            finder.patch(module)


def disarm() -> None:
    """Take the finder and every patch away. For tests: a process of OneTrainer keeps what it was started with."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, PatchFinder)]
    undo_all()
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):  # others put anything there
            module.__dict__.pop(_APPLIED, None)
    _outcomes.clear()


def is_armed() -> bool:
    """Whether patches are being applied in this process."""
    return _armed_finder() is not None


def _armed_finder() -> PatchFinder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, PatchFinder)), None)


class PatchFinder(importlib.abc.MetaPathFinder):
    """Finds the modules that have patches with the other finders, and wraps their loaders."""

    def __init__(self) -> None:
        self._patches: dict[str, list[Patch]] = {}
        self._checkouts: list[Path] = []

    def add(self, patches: Iterable[Patch], checkout: Path) -> None:
        resolved = checkout.resolve()
        if resolved not in self._checkouts:
            self._checkouts.append(resolved)
        for patch in patches:
            known = self._patches.setdefault(patch.module, [])
            if patch.name not in (other.name for other in known):
                known.append(patch)

    def modules(self) -> list[str]:
        return list(self._patches)

    def is_ours(self, origin: str | None) -> bool:
        """Whether a module's file lies in an enabled checkout."""
        if not origin:
            return False
        path = Path(origin).resolve()
        return any(path.is_relative_to(checkout) for checkout in self._checkouts)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._patches:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module") and self.is_ours(spec.origin):
                    spec.loader = _PatchingLoader(spec.loader, self)
                return spec
        return None

    def patch(self, module: ModuleType) -> None:
        """Apply each patch of a module that was imported, each in a guard of its own."""
        applied: set[str] = module.__dict__.setdefault(_APPLIED, set())
        for patch in self._patches.get(module.__name__, ()):
            if patch.name in applied:
                continue
            applied.add(patch.name)
            outcome = _apply(patch, module)
            _outcomes[patch.name] = outcome
            if outcome.message:
                logger.warning("%s", outcome.message)


class _PatchingLoader(importlib.abc.Loader):
    """The real loader, and patches after it; it steps aside before the module's code runs."""

    def __init__(self, loader: Any, finder: PatchFinder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source, get_data, is_package, …

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on nobody sees that we were there: inspect, pickle and a reload deal with the real loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__dict__.pop(_APPLIED, None)
        self._loader.exec_module(module)
        self._finder.patch(module)


def _apply(patch: Patch, module: ModuleType) -> Outcome:
    try:
        missing = [symbol for symbol in patch.needs if not has_symbol(module, symbol)]
        if missing:
            message = f"this OneTrainer has no {', '.join(missing)}: without it there is no {patch.why}"
            return Outcome(patch.name, patch.module, "missing", message)
        patch.apply(module)
    except (Exception, SystemExit) as error:  # the boundary to OneTrainer's own import, which must go on
        logger.debug("patch %s failed", patch.name, exc_info=True)
        message = f"patch {patch.name} failed, so there is no {patch.why}: {type(error).__name__}: {error}"
        return Outcome(patch.name, patch.module, "failed", message)
    return Outcome(patch.name, patch.module, "applied")


def has_symbol(module: ModuleType, symbol: str) -> bool:
    """Whether ``Class.name`` is in `module`; ``other.module:Class.name`` asks that other one, and imports it."""
    place, _, name = symbol.rpartition(":")
    found: Any = module
    if place:
        try:
            found = importlib.import_module(place)
        except ImportError:
            return False
    return all((found := getattr(found, part, _MISSING)) is not _MISSING for part in name.split("."))
