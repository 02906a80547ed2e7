"""Tells from an exception what kind of failure it is and how grave, without importing torch or any network library.

Foreign exceptions are known by the names of their classes, by error numbers and, where libraries give nothing
better (torch raises plain `RuntimeError` for much), by their messages.
"""

from __future__ import annotations

import errno
import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wan_fixes.errors import CriticalError, EntryError, SampleError, UserError, WanFixesError
from wan_fixes.health.taxonomy import ErrorType, FailureRecord

TRANSIENT_KINDS: Final = frozenset({"network", "timeout", "file_in_use"})
"""Kinds that may be gone a moment later."""
FALLBACK_KINDS: Final = frozenset({"format", "metadata"})
"""Kinds for which a default value or a conversion may serve."""
MEMORY_KINDS: Final = frozenset({"gpu_memory", "memory"})
ITEM_KINDS: Final = frozenset(
    {"cache_entry", "decode", "file_missing", "format", "io", "metadata", "permission", "sample"}
)
"""Kinds that lie in the item and say nothing about the module."""

_CRITICAL_KINDS: Final = MEMORY_KINDS | {"disk_full", "gpu", "installation", "interrupted", "model", "unusable", "user"}
_WARNING_KINDS: Final = frozenset({"metadata", "warning"})

_TRANSIENT_ERRNOS: Final = {
    errno.EAGAIN: "file_in_use",
    errno.EBUSY: "file_in_use",
    errno.EINTR: "file_in_use",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNABORTED: "network",
    errno.ECONNREFUSED: "network",
    errno.ECONNRESET: "network",
    errno.EHOSTUNREACH: "network",
    errno.ENETDOWN: "network",
    errno.ENETRESET: "network",
    errno.ENETUNREACH: "network",
    errno.EPIPE: "network",
}
_DISK_FULL_ERRNOS: Final = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_WINDOWS_IN_USE: Final = {32, 33}  # ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION
_WINDOWS_DISK_FULL: Final = {39, 112}  # ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL
_TRANSIENT_HTTP_STATUS: Final = {408, 425, 429, 500, 502, 503, 504}

# Classes of torch, requests, httpx, urllib, urllib3, botocore, PyAV, Pillow, filelock: names along the MRO.
_CLASS_KINDS: Final = {
    "OutOfMemoryError": "gpu_memory",
    "AcceleratorError": "gpu",
    "DistBackendError": "gpu",
    "Timeout": "timeout",
    "TimeoutException": "timeout",
    "ReadTimeoutError": "timeout",
    "ConnectTimeoutError": "timeout",
    "ConnectionError": "network",
    "ConnectionClosedError": "network",
    "EndpointConnectionError": "network",
    "IncompleteRead": "network",
    "NameResolutionError": "network",
    "NetworkError": "network",
    "ProtocolError": "network",
    "RemoteProtocolError": "network",
    "URLError": "network",
    "gaierror": "network",
    "DecoderNotFoundError": "format",
    "DemuxerNotFoundError": "format",
    "UnidentifiedImageError": "decode",
    "DecompressionBombError": "decode",
    "FFmpegError": "decode",
}

_MESSAGE_KINDS: Final = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (
            "gpu_memory",
            r"(cuda|hip|xpu|mps backend|gpu)\b.{0,20}out of memory|(CUBLAS|CUDNN|HIPBLAS|MIOPEN)_STATUS_ALLOC_FAILED",
        ),
        (
            "memory",
            r"DefaultCPUAllocator|not enough memory: you tried to allocate|cannot allocate memory|std::bad_alloc",
        ),
        # A kernel that died takes the whole CUDA context with it: every later call fails too.
        (
            "gpu",
            r"(cuda|hip) error: (?!out of memory)|device-side assert|illegal memory access|"
            r"C(UDNN|UBLAS)_STATUS_(EXECUTION|INTERNAL)",
        ),
        # "unexpected pos 704 vs 662" is how torch.save says that the disk is full.
        (
            "disk_full",
            r"no space left on device|(disk|database) is full|not enough space on the disk|quota exceeded|"
            r"unexpected pos \d+ vs \d+",
        ),
        (
            "model",
            r"error\(s\) in loading state_dict|cannot copy out of meta tensor|does not appear to have a file named|"
            r"not a valid model identifier|unable to load weights|can't load (the )?(tokenizer|model|config|feature)",
        ),
        ("file_in_use", r"database (table )?is locked|resource temporarily unavailable|being used by another process"),
        ("format", r"unsupported (codec|pixel format|sample format|compression)|unknown (codec|encoder|decoder)"),
    )
)


def failure_kind(error: BaseException, context: Mapping[str, Any] | None = None) -> str:
    """What sort of failure `error` is: a word such as "network", "decode", "gpu_memory"; "other" when nothing is known.

    The context may say ``{"stage": "model_load"}``, ``{"optional": True}`` (only optional metadata is missing),
    ``{"unrecoverable": True}`` (a repair was tried and failed) or ``{"kind": …}``. Facts in the error's own context
    count as well.
    """
    facts = _facts(error, context)
    found = next((kind for kind in map(_kind_of_one, _chain(error)) if kind), "other")
    if isinstance(error, WanFixesError):
        return str(facts.get("kind") or (found if found != "other" else _OWN_KINDS.get(type(error), "other")))
    # Exhausted memory and disks stay what they are, whatever stage met them.
    if found in _CRITICAL_KINDS:
        return found
    if facts.get("unrecoverable"):
        return "unusable"
    if facts.get("stage") == "model_load" and found not in TRANSIENT_KINDS:
        return "model"
    if facts.get("optional"):
        return "metadata"
    return str(facts.get("kind") or found)


def error_type(error: BaseException, context: Mapping[str, Any] | None = None) -> ErrorType:
    """How grave `error` is. An error of ours says so by its class; any other is judged by `failure_kind`."""
    facts = _facts(error, context)
    if isinstance(error, (CriticalError, UserError)) or facts.get("unrecoverable"):
        return ErrorType.CRITICAL
    if isinstance(error, (SampleError, EntryError)):
        return ErrorType.RECOVERABLE
    kind = failure_kind(error, context)
    if kind in _CRITICAL_KINDS:
        return ErrorType.CRITICAL
    return ErrorType.WARNING if kind in _WARNING_KINDS else ErrorType.RECOVERABLE


def is_transient(error: BaseException, context: Mapping[str, Any] | None = None) -> bool:
    """Whether trying again may help. Errors of ours are verdicts already, unless their context says "transient"."""
    facts = _facts(error, context)
    if isinstance(error, WanFixesError):
        return bool(facts.get("transient"))
    return failure_kind(error, context) in TRANSIENT_KINDS


def describe(
    error: BaseException, module: str, item: str = "", context: Mapping[str, Any] | None = None
) -> FailureRecord:
    """The record of a failure. Where the caller is silent, the error itself may know module, item and fix."""
    fix = ""
    if isinstance(error, WanFixesError):
        module = module or error.module or ""
        item = item or error.path or ""
        cause = f"{error.what}: {error.reason}" if error.reason else error.what
        fix = error.fix
    else:
        item = item or str(getattr(error, "filename", None) or "")
        cause = f"{type(error).__name__}: {_text(error)}".removesuffix(": ")
    return FailureRecord(
        module=module or "unknown module",
        item=item or "unknown item",
        cause=cause or type(error).__name__,
        kind=failure_kind(error, context),
        error_type=error_type(error, context),
        fix=fix,
    )


_OWN_KINDS: Final[dict[type[BaseException], str]] = {
    CriticalError: "unusable",
    UserError: "user",
    EntryError: "cache_entry",
    SampleError: "sample",
}


def _facts(error: BaseException, context: Mapping[str, Any] | None) -> dict[str, Any]:
    own = error.context if isinstance(error, WanFixesError) else {}
    return own | dict(context or {})


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first; what it merely followed does not count."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _kind_of_one(error: BaseException) -> str | None:
    """The kind of one exception by itself, or None when neither class, number nor message tells."""
    if isinstance(error, WanFixesError):
        return None
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return "interrupted"
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, Warning):
        return "warning"
    names = {cls.__name__ for cls in type(error).__mro__}
    by_class = next((kind for name, kind in _CLASS_KINDS.items() if name in names), None)
    message = _text(error)
    by_message = next((kind for kind, pattern in _MESSAGE_KINDS if pattern.search(message)), None)
    status = _http_status(error)
    if status is not None:
        return "network" if status in _TRANSIENT_HTTP_STATUS else "http"
    if by_class in _CRITICAL_KINDS:
        return by_class
    if by_message in _CRITICAL_KINDS:
        return by_message
    if isinstance(error, OSError):
        return _os_kind(error) or by_class or by_message or "io"
    if isinstance(error, (ImportError, SyntaxError)):
        return "installation"
    if isinstance(error, UnicodeError):
        return "format"
    if isinstance(error, sqlite3.DatabaseError):
        return by_message or "database"
    return by_class or by_message


def _os_kind(error: OSError) -> str | None:
    windows = getattr(error, "winerror", None)
    if error.errno in _DISK_FULL_ERRNOS or windows in _WINDOWS_DISK_FULL:
        return "disk_full"
    if windows in _WINDOWS_IN_USE:
        return "file_in_use"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError):
        return "network"
    if isinstance(error, FileNotFoundError):
        return "file_missing"
    if isinstance(error, PermissionError):
        # Windows' open() says only EACCES when another program has the file.
        return "file_in_use" if sys.platform == "win32" else "permission"
    return _TRANSIENT_ERRNOS.get(error.errno) if error.errno is not None else None


def _http_status(error: BaseException) -> int | None:
    """The status of an HTTP error of requests, httpx, huggingface_hub or urllib."""
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    return status if isinstance(status, int) and 400 <= status < 600 else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001 -- a foreign __str__ may raise anything
        return f"(its message cannot be read: {type(problem).__name__})"
