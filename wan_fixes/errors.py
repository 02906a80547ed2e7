"""What can go wrong, as exceptions that name the thing, the reason and the fix.

The lowest room: everything may import it, it imports nothing of ours. Every error here is picklable, so
that it survives the way back from a worker process.
"""

from __future__ import annotations

import os
from typing import Any


class WanFixesError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    what:
        What failed, in the user's words ("clip cannot be read").
    path:
        The file or folder that it is about, if any.
    reason:
        Why it failed.
    fix:
        What the user can do about it.
    module:
        The pipeline module or component that found it.
    context:
        Further JSON-able facts for logs and the run database.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str | os.PathLike[str] | None = None,
        reason: str = "",
        fix: str = "",
        module: str | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.path = None if path is None else os.fspath(path)
        self.reason = reason
        self.fix = fix
        self.module = module
        self.context = dict(context or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.path, self.reason, self.fix, self.module, self.context)

    def __str__(self) -> str:
        head = self.what if self.path is None else f"{self.what}: {self.path}"
        if self.reason:
            head = f"{head}: {self.reason}"
        return f"{head} ({self.fix})" if self.fix else head


def _rebuild(
    cls: type[WanFixesError],
    what: str,
    path: str | None,
    reason: str,
    fix: str,
    module: str | None,
    context: dict[str, Any],
) -> WanFixesError:
    return cls(what, path=path, reason=reason, fix=fix, module=module, context=context)


class UserError(WanFixesError):
    """Something the user gave us cannot be used, and nothing can go on without it.

    The command line prints it without a traceback and exits with a code other than zero.
    """


class NoRunError(UserError):
    """Nothing has been recorded there yet."""


class NothingUsableError(UserError):
    """Not one sample can be trained on. The command line has an exit code of its own for it."""


class SampleError(WanFixesError):
    """One sample cannot be used. The run goes on without it."""


class EntryError(WanFixesError):
    """A cache entry is missing, damaged or foreign. It is rebuilt, never believed."""


class CriticalError(WanFixesError):
    """The run must stop: out of GPU memory, the model cannot be loaded, the cache cannot be written."""
