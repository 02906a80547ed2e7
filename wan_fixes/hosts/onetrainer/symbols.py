"""Which symbols a checkout has, read from its sources with `ast`: nothing of it is imported, any Python will do."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from wan_fixes.hosts.onetrainer.patching import Patch

ReadSource: TypeAlias = Callable[[str], str | None]
"""Gets a path inside the checkout like ``modules/util/create.py``; returns its text, None where there is none."""

_BASES_FOLLOWED = 8


def read_from(checkout: Path) -> ReadSource:
    """A reader of the files of a checkout on disk."""

    def read(path: str) -> str | None:
        file = checkout / path
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None

    return read


class SourceSymbols:
    """Answers for one checkout, each file read once.

    Parameters
    ----------
    read:
        Where the sources come from: a folder (`read_from`), or a commit.
    """

    def __init__(self, read: ReadSource) -> None:
        self._read = read
        self._trees: dict[str, ast.Module | None] = {}

    def missing(self, patch: Patch) -> list[str]:
        """The symbols of ``patch.needs`` that the checkout lacks; its module itself, where that is not there."""
        if self._tree(patch.module) is None:
            return [patch.module]
        return [symbol for symbol in patch.needs if not self.has(patch.module, symbol)]

    def lacking(self, patches: Iterable[Patch]) -> dict[str, list[str]]:
        """By the name of each patch that the checkout has no place for, what is missing.

        Patches with one reason are ways to one end, for OneTrainers of different ages: where one of them finds its
        place, the others lack nothing.
        """
        missing = {patch: self.missing(patch) for patch in patches}
        reached = {patch.why for patch, symbols in missing.items() if not symbols}
        return {patch.name: symbols for patch, symbols in missing.items() if patch.why not in reached}

    def has(self, module: str, symbol: str) -> bool:
        """Whether ``Class.name`` is defined or imported in `module`, or ``other.module:Class.name`` in that one."""
        place, _, name = symbol.rpartition(":")
        return self._has(place or module, name.split("."), _BASES_FOLLOWED)

    def _has(self, module: str, names: list[str], depth: int) -> bool:
        tree = self._tree(module)
        if tree is None or depth == 0:
            return False
        found = _definitions(tree.body).get(names[0])
        if found is None:
            return False
        if len(names) == 1:
            return True
        if isinstance(found, ast.ImportFrom):
            return self._has(found.module or "", [_name_at_home(found, names[0]), *names[1:]], depth - 1)
        if not isinstance(found, ast.ClassDef):
            return False
        if _as_written(names[0], names[1]) in _definitions(found.body):
            return True
        bases = [base.id for base in found.bases if isinstance(base, ast.Name)]
        return any(self._has(module, [base, *names[1:]], depth - 1) for base in bases)

    def _tree(self, module: str) -> ast.Module | None:
        if module not in self._trees:
            path = module.replace(".", "/")
            source = self._read(f"{path}.py") or self._read(f"{path}/__init__.py")
            try:
                self._trees[module] = None if source is None else ast.parse(source)
            except SyntaxError:  # newer syntax than this Python's, or a file with conflict marks
                self._trees[module] = None
        return self._trees[module]


def _definitions(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The names that these statements bind, also inside `if` and `try`."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0]: node for alias in node.names}
        elif isinstance(node, (ast.If, ast.Try)):
            found |= _definitions([*node.body, *node.orelse])
    return found


def _as_written(class_name: str, name: str) -> str:
    """The name of a member in the source of its class, where Python has mangled it (``_Class__name``)."""
    prefix = f"_{class_name.lstrip('_')}__"
    return f"__{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def _name_at_home(node: ast.ImportFrom, name: str) -> str:
    return next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
