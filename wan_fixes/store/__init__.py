"""The sample cache on disk: keys, payloads, index, quarantine. Knows tensors and names, nothing else.

Names are imported on first use, so that what needs no tensors (keys, quarantine) costs no tensor library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wan_fixes.store.database import Database
    from wan_fixes.store.keys import ContentIds, content_id, make_key
    from wan_fixes.store.payload import FORMAT_VERSION
    from wan_fixes.store.quarantine import Quarantine, QuarantineEntry
    from wan_fixes.store.samples import SampleStore, StoreStats

__all__ = [
    "FORMAT_VERSION",
    "ContentIds",
    "Database",
    "Quarantine",
    "QuarantineEntry",
    "SampleStore",
    "StoreStats",
    "content_id",
    "make_key",
]

_HOME = {
    "ContentIds": "keys",
    "Database": "database",
    "content_id": "keys",
    "make_key": "keys",
    "FORMAT_VERSION": "payload",
    "Quarantine": "quarantine",
    "QuarantineEntry": "quarantine",
    "SampleStore": "samples",
    "StoreStats": "samples",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
