"""What a patch is, and how one is laid around a symbol of OneTrainer so that others can lie around it too."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

_MISSING: Final = object()
_undo: list[Callable[[], None]] = []

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patch:
    """One change to OneTrainer, applied right after a module of it was imported.

    Attributes
    ----------
    name:
        Unique in the table; what logs, `wan doctor` and the compatibility table call it.
    module:
        The module after whose import it is applied, like ``modules.util.create``.
    needs:
        The symbols without which it is left out: ``name`` or ``Class.name`` in `module`, or ``other.module:Class.name``
        in another one, which is then imported if it was not. An annotation alone is no symbol.
    apply:
        Called with the module. Whatever it raises is logged and recorded, and OneTrainer goes on.
    why:
        What does not work without it, as the end of "without it there is no …": "validation of training data".
    """

    name: str
    module: str
    needs: tuple[str, ...]
    apply: Callable[[ModuleType], None]
    why: str


def wrap(owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``around(function)`` in the place of `owner`'s function `name`, whoever has put that there.

    `owner` is a module or a class. The new function gets the name, docstring and ``__wrapped__`` of the one that it
    replaces; static and class methods stay what they are. Class methods get the class as the first argument.
    """
    stock = inspect.getattr_static(owner, name)
    function = stock.__func__ if isinstance(stock, (staticmethod, classmethod)) else stock
    replacement: Any = functools.wraps(function)(around(function))
    if isinstance(stock, (staticmethod, classmethod)):
        replacement = type(stock)(replacement)
    replace(owner, name, replacement)


def replace(owner: Any, name: str, value: Any) -> None:
    """Set `owner.name`, and remember what was there for `undo_all`."""
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)

    def undo() -> None:
        if vars(owner).get(name) is not value:
            return  # another one has wrapped ours: it cannot be taken out from in between
        if before is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    _undo.append(undo)


def shielded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`; what it raises is logged, and None comes back: for what OneTrainer can do without."""
    try:
        return function(*arguments)
    except Exception as error:
        logger.warning("%s failed, and OneTrainer goes on: %s: %s", function.__qualname__, type(error).__name__, error)
        logger.debug("where it happened", exc_info=True)
        return None


def on_undo(undo: Callable[[], None]) -> None:
    """For a patch that changes more than a symbol (a registry): have `undo` called by `undo_all`."""
    _undo.append(undo)


def undo_all() -> None:
    """Take back every change, the latest first."""
    while _undo:
        _undo.pop()()
