"""What can go wrong with model files: an error with a code that programs can tell apart and that stays the same."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from wan_fixes.errors import UserError, WanFixesError


class ErrorCode(str, Enum):
    """Why model files cannot be had. Listed in docs/models.md; names are never given another meaning."""

    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    INVALID_MANIFEST = "INVALID_MANIFEST"
    SCHEMA_VERSION = "SCHEMA_VERSION"
    UNSAFE_PATH = "UNSAFE_PATH"
    INVALID_CONFIG = "INVALID_CONFIG"
    NO_SPACE = "NO_SPACE"
    NOT_WRITABLE = "NOT_WRITABLE"
    LOCK_TIMEOUT = "LOCK_TIMEOUT"
    OFFLINE = "OFFLINE"
    AUTH_FAIL = "AUTH_FAIL"
    NOT_FOUND = "NOT_FOUND"
    RATE_LIMIT = "RATE_LIMIT"
    NETWORK = "NETWORK"
    TIMEOUT = "TIMEOUT"
    TLS_FAIL = "TLS_FAIL"
    UNTRUSTED_HOST = "UNTRUSTED_HOST"
    SERVER_ERROR = "SERVER_ERROR"
    BAD_REPLY = "BAD_REPLY"
    SOURCE_CHANGED = "SOURCE_CHANGED"
    SIZE_MISMATCH = "SIZE_MISMATCH"
    CHECKSUM_FAIL = "CHECKSUM_FAIL"
    SIGNATURE_FAIL = "SIGNATURE_FAIL"
    NO_KEY = "NO_KEY"
    MISSING_FILES = "MISSING_FILES"
    IN_USE = "IN_USE"
    STOPPED = "STOPPED"
    ALL_SOURCES_FAILED = "ALL_SOURCES_FAILED"


#: What may be gone a moment later, so that it is worth trying again.
TRANSIENT = frozenset(
    {
        ErrorCode.RATE_LIMIT,
        ErrorCode.NETWORK,
        ErrorCode.TIMEOUT,
        ErrorCode.SERVER_ERROR,
    }
)
_OF_THE_USER = frozenset(
    {
        ErrorCode.UNKNOWN_MODEL,
        ErrorCode.INVALID_MANIFEST,
        ErrorCode.SCHEMA_VERSION,
        ErrorCode.UNSAFE_PATH,
        ErrorCode.INVALID_CONFIG,
    }
)


class ModelError(UserError):
    """Model files cannot be had or used.

    Attributes
    ----------
    code:
        Why.
    retry_after:
        Seconds after which the server said to come back; None where it did not say.
    """

    def __init__(
        self,
        code: ErrorCode,
        what: str,
        *,
        path: str | os.PathLike[str] | None = None,
        reason: str = "",
        fix: str = "",
        retry_after: float | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(what, path=path, reason=reason, fix=fix, module="models", context=context)
        self.code = code
        self.retry_after = retry_after

    @property
    def is_failure(self) -> bool:
        """Whether it could not be done, though nothing that the user typed or wrote is wrong."""
        return self.code not in _OF_THE_USER

    @property
    def is_transient(self) -> bool:
        """Whether it is worth trying again."""
        return self.code in TRANSIENT

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.code, self.what, self.path, self.reason, self.fix, self.retry_after, self.context)


def _rebuild(
    code: ErrorCode,
    what: str,
    path: str | None,
    reason: str,
    fix: str,
    retry_after: float | None,
    context: dict[str, Any],
) -> WanFixesError:
    return ModelError(code, what, path=path, reason=reason, fix=fix, retry_after=retry_after, context=context)
