"""Asking the sources of a model one after another, until one can do what is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from wan_fixes.models.correlation import model_logger
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.sources.order import is_offline
from wan_fixes.models.sources.resting import RestingSources
from wan_fixes.models.sources.source import Source

Result = TypeVar("Result")

# What no other source can help with.
_OF_THIS_MACHINE: Final = frozenset(
    {
        ErrorCode.NO_SPACE,
        ErrorCode.NOT_WRITABLE,
        ErrorCode.LOCK_TIMEOUT,
        ErrorCode.IN_USE,
        ErrorCode.STOPPED,
        ErrorCode.SIGNATURE_FAIL,
        ErrorCode.NO_KEY,
    }
)

logger = model_logger(__name__)


class SourceRound:
    """Goes through sources; those that just failed are asked last.

    Parameters
    ----------
    remembers:
        Whether it is remembered which ones failed.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        self._remembers = remembers
        self._resting = RestingSources()

    def first_that_can(self, name: object, sources: Iterable[Source], work: Callable[[Source], Result]) -> Result:
        """What `work` gives for the first source with which it does not fail. Each is closed in the end.

        Raises ModelError: naming all that failed, or at once for what no other source can help with.
        """
        failures: list[tuple[Source, ModelError]] = []
        with contextlib.ExitStack() as stack:
            resting = []
            for source in sources:
                stack.callback(source.close)
                if is_offline() and not is_local(source):
                    continue
                if self._remembers and self._resting.why(source.label) is not None:
                    resting.append(source)
                    continue
                try:
                    return self._ask(source, work)
                except _FailedError as failed:
                    failures.append((source, failed.error))
            for source in resting:
                try:
                    return self._ask(source, work)
                except _FailedError as failed:
                    failures.append((source, failed.error))
        raise _all_failed(name, failures)

    def _ask(self, source: Source, work: Callable[[Source], Result]) -> Result:
        try:
            result = work(source)
        except ModelError as error:
            if error.code in _OF_THIS_MACHINE:
                raise
            logger.info("%s cannot help: %s", source.label, error)
            self._resting.failed(source.label, error)
            raise _FailedError(error) from error
        self._resting.worked(source.label)
        return result


def is_local(source: Source) -> bool:
    """Whether it lies on this machine, or a drive of it, so that offline does not forbid it."""
    return bool(getattr(source, "is_local", False))


class _FailedError(Exception):
    def __init__(self, error: ModelError) -> None:
        super().__init__(str(error))
        self.error = error


def _all_failed(name: object, failures: list[tuple[Source, ModelError]]) -> ModelError:
    # That this machine does not have it either is told only where nobody else was asked.
    asked = [pair for pair in failures if not is_local(pair[0]) or pair[1].code is not ErrorCode.NOT_FOUND]
    failures = asked or failures
    if len(failures) == 1:
        return failures[0][1]
    if not failures:
        return ModelError(
            ErrorCode.NOT_FOUND,
            f"{name} cannot be had",
            reason="there is no source to ask",
            fix="name a folder that has it in WAN_MODELS_LOCAL, or allow the network",
        )
    said = "; ".join(f"{source.label}: {error.code.value}, {error.reason}" for source, error in failures)
    return ModelError(
        ErrorCode.ALL_SOURCES_FAILED,
        f"{name} cannot be had",
        reason=said,
        fix=failures[-1][1].fix,
        context={"sources": [{"source": source.label, "code": error.code.value} for source, error in failures]},
    )
